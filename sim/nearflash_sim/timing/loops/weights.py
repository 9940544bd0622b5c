"""Weights streamed from DRAM, once for each group (``nearflash_hw.mlp.weights``)."""

from __future__ import annotations

from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats

from .compiled import apart, compiled
from .dram import burst

__all__ = ["ask_ahead", "stream_of", "weight"]

BURST_BEATS = 256
FIFO = 2  # a beat's arrival to its leaving the FIFO, at the earliest
ASK_EVERY = 2


def stream_of(core: Core, beat_bytes: int) -> tuple[int, int, int, int]:
    """Of a core's weights: beats of a word, of all, of a burst, and that its FIFO holds; no beats where they are on chip."""
    if core.weights != "dram":
        return 0, 1, 1, 1
    beats = weight_word_beats(core, beat_bytes)
    total = core.steps * beats
    burst = min(BURST_BEATS, 1 << (total - 1).bit_length())
    return beats, total, burst, max(4, 2 * burst)


@compiled
def _ask(m, u):
    """The core's next burst is asked for: its pass has begun, and the FIFO has room."""
    c = m.unit[u]
    beats = _next_beats(c)
    at = max(c.requested + ASK_EVERY, m.started[u, c.asked // c.pass_beats % 2] + 1)
    before = c.asked + beats - c.room - 1
    if before >= 0:
        at = max(at, m.weight_read[u, before % c.room] + 1)
    c.requested = at
    first = burst(m, at + m.s[0].dram, beats)
    for i in range(beats):
        m.weight_came[u, (c.asked + i) % c.room] = first + i
    c.asked += beats


@compiled
def _next_beats(c):
    return min(c.burst, c.pass_beats - c.asked % c.pass_beats)


@apart
def ask_ahead(m, u, group):
    """The first element of ``group`` arrives at the core: its bursts for which there is room are asked for."""
    c = m.unit[u]
    while c.asked < (group + 1) * c.pass_beats and c.asked + _next_beats(c) - c.room <= c.beat:
        _ask(m, u)


@compiled
def weight(m, u, at):
    """The core takes its next weight word in cycle ``at`` or later; returns when."""
    c = m.unit[u]
    for i in range(c.word_beats):
        if c.beat == c.asked:
            _ask(m, u)
        read = max(m.weight_came[u, c.beat % c.room] + FIFO, c.read + 1)
        if i == 0:
            read = max(read, c.used)
        c.read = m.weight_read[u, c.beat % c.room] = read
        c.beat += 1
    c.used = max(at, c.read + 1)
    return c.used
