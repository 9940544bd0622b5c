"""Weights streamed from DRAM, once for each group (``nearflash_hw.mlp.weights``).

A core asks for its next burst when a pass has begun and its FIFO has room. All cores share a port, so what they ask for is
found in order of time, a burst at a time.
"""

from __future__ import annotations

from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats

from .compiled import apart, compiled
from .dram import burst
from .state import INF

__all__ = ["next_burst", "plan_bursts", "stream_of", "take_word", "word_here"]

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
def _next_beats(c):
    return min(c.burst, c.pass_beats - c.asked % c.pass_beats)


@compiled
def _ask_at(m, u):
    """From when on core ``u`` asks for its next burst: its pass has begun, and the FIFO has room. INF: that isn't known."""
    c = m.unit[u]
    if c.asked == c.starts * c.pass_beats:
        return INF
    at = max(c.requested + ASK_EVERY, m.started[u, c.asked // c.pass_beats % 2] + 1)
    before = c.asked + _next_beats(c) - c.room - 1
    if before >= c.beat:
        return INF
    return max(at, m.weight_read[u, before % c.room] + 1) if before >= 0 else at


@apart
def plan_bursts(m):
    """Set when the next burst is asked for, and by which core; of those that ask in the same cycle, in turn."""
    r = m.dram[0]
    r.next_at = INF
    for i in range(len(m.unit)):
        u = (r.unit_last + 1 + i) % len(m.unit)
        if m.unit[u].word_beats:
            at = max(_ask_at(m, u), r.requested + ASK_EVERY)
            if at < r.next_at:
                r.next_at, r.unit = at, u


@apart
def next_burst(m):
    """That burst is given."""
    r = m.dram[0]
    u, at = r.unit, r.next_at
    r.unit_last, r.requested = u, at
    c = m.unit[u]
    c.requested = at
    beats = _next_beats(c)
    first = burst(m, at + m.s[0].dram, beats)
    for i in range(beats):
        m.weight_came[u, (c.asked + i) % c.room] = first + i
    c.asked += beats
    _gather(m, u)


@compiled
def _gather(m, u):
    """Beats of the next word leave the FIFO, as far as they are there."""
    c = m.unit[u]
    end = min(c.asked, (c.word + 1) * c.word_beats)
    while c.beat < end:
        read = max(m.weight_came[u, c.beat % c.room] + FIFO, c.read + 1)
        if c.beat == c.word * c.word_beats:
            read = max(read, c.used)
        c.read = m.weight_read[u, c.beat % c.room] = read
        c.beat += 1


@compiled
def word_here(c):
    """Whether it is known when the core's next word is there."""
    return c.beat == (c.word + 1) * c.word_beats


@compiled
def take_word(m, u, at):
    """The core takes that word in cycle ``at`` or later; returns when."""
    c = m.unit[u]
    c.used = max(at, c.read + 1)
    c.word += 1
    _gather(m, u)
    return c.used
