"""Weights streamed from DRAM, once for each group (``nearflash_hw.mlp.weights``)."""

from __future__ import annotations

from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats

from .compiled import compiled

__all__ = ["BUCKETS", "stream_of", "weight"]

BURST_BEATS = 256
FIFO = 2  # a beat's arrival to its leaving the FIFO, at the earliest
ASK_EVERY = 2
BUCKET_BITS, BUCKETS = 8, 1 << 14  # stretches of time: their beats, and how many are remembered


def stream_of(core: Core, beat_bytes: int) -> tuple[int, int, int, int]:
    """Of a core's weights: beats of a word, of all, of a burst, and that its FIFO holds; no beats where they are on chip."""
    if core.weights != "dram":
        return 0, 1, 1, 1
    beats = weight_word_beats(core, beat_bytes)
    total = core.steps * beats
    burst = min(BURST_BEATS, 1 << (total - 1).bit_length())
    return beats, total, burst, max(4, 2 * burst)


@compiled
def _transfer(m, at, beats):
    """The last of ``beats`` that memory gives from cycle ``at`` on. What the cores ask for is not found in order of time: a
    stretch of time has room for as many beats as it has cycles."""
    bucket = at >> BUCKET_BITS
    end = at
    while beats > 0:
        k = bucket % BUCKETS
        if m.bus_bucket[k] != bucket:
            m.bus_bucket[k], m.bus_used[k] = bucket, 0
        first = max(m.bus_used[k], at - (bucket << BUCKET_BITS))
        part = min(beats, (1 << BUCKET_BITS) - first)
        if part > 0:
            m.bus_used[k] = first + part
            end = (bucket << BUCKET_BITS) + first + part - 1
            beats -= part
        bucket += 1
    return end


@compiled
def _ask(m, u, group):
    """The core's next burst is asked for: its pass has begun, and the FIFO has room."""
    c = m.unit[u]
    beats = min(c.burst, c.pass_beats - c.asked % c.pass_beats)
    at = max(c.requested + ASK_EVERY, m.started[u, group % 2] + 1)
    before = c.asked + beats - c.room - 1
    if before >= 0:
        at = max(at, m.weight_read[u, before % c.room] + 1)
    c.requested = at
    c.burst_from = c.asked
    c.burst_at = _transfer(m, at + m.s[0].dram, beats) - beats + 1
    c.asked += beats


@compiled
def weight(m, u, group, at):
    """The core takes its next weight word in cycle ``at`` or later; returns when."""
    c = m.unit[u]
    for i in range(c.word_beats):
        if c.beat == c.asked:
            _ask(m, u, group)
        read = max(c.burst_at + c.beat - c.burst_from + FIFO, c.read + 1)
        if i == 0:
            read = max(read, c.used)
        c.read = m.weight_read[u, c.beat % c.room] = read
        c.beat += 1
    c.used = max(at, c.read + 1)
    return c.used
