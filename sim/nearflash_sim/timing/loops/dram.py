"""What memory gives first: beats in the order in which they were asked for, one a cycle (``primitives.interconnect``).

The flash's and the map's reads are found in order of time, those of streamed weights are not: a read waits for the bursts of
weights asked for before it that are known by then. They don't wait for the few beats of the flash and the map.
"""

from __future__ import annotations

from .compiled import compiled

__all__ = ["BURSTS", "burst", "read"]

BURSTS = 64  # the latest ones, of which is kept when they were asked for


@compiled
def _behind(r, asked, at):
    for k in range(BURSTS):
        if r.burst_asked[k] <= asked:
            at = max(at, r.burst_end[k] + 1)
    return at


@compiled
def burst(m, asked, beats):
    """A burst of weights that memory could give from cycle ``asked`` on; returns the cycle of its first beat. What was asked
    for later and is known already makes room: whoever wants it doesn't learn of that, but what is found next does, so that
    memory gives no more than a beat a cycle."""
    at = _behind(m, asked, asked)
    last, then = at + beats - 1, asked
    while True:
        after = -1
        for k in range(BURSTS):
            if m.burst_asked[k] > then and (after < 0 or m.burst_asked[k] < m.burst_asked[after]):
                after = k
        if after < 0 or m.burst_first[after] > last:
            break
        m.burst_end[after] += last + 1 - m.burst_first[after]
        m.burst_first[after] = last + 1
        last, then = m.burst_end[after], m.burst_asked[after]
    place = m.s[0].bursts % BURSTS
    m.s[0].bursts += 1
    m.burst_asked[place], m.burst_first[place], m.burst_end[place] = asked, at, at + beats - 1
    return at


@compiled
def read(d, a, asked):
    """A read for the flash or the map that memory could give from cycle ``asked`` on; returns the cycle of its first beat.
    One that is found late (see ``flash``) doesn't wait for those after it."""
    s = a.s[0]
    at = asked
    if asked >= s.dram_asked:
        s.dram_asked = asked
        at = max(at, s.dram_bus)
    return _behind(a, asked, at) if d.streams else at
