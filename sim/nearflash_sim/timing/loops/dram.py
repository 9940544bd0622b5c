"""What memory gives first: beats in the order in which they were asked for, one a cycle (``primitives.interconnect``).

The flash's and the map's reads are found in order of time, those of streamed weights are not: a read waits for the bursts of
weights asked for before it that are known by then. They don't wait for the few beats of the flash and the map. Where several
lines of the map may be on their way, translations are found long before their reads, and all of these are kept, like bursts.
"""

from __future__ import annotations

from .compiled import compiled

__all__ = ["BURSTS", "burst", "read"]

BURSTS = 64  # the latest ones, and the latest reads, of which is kept when they were asked for


@compiled
def _behind(asked_at, end_at, asked, at):
    for k in range(BURSTS):
        if asked_at[k] <= asked:
            at = max(at, end_at[k] + 1)
    return at


@compiled
def _between(asked_at, first_at, end_at, place, asked, beats):
    """A burst takes ``place`` in a ring of them, in the order in which they were asked for; returns the cycle of its first
    beat. What was asked for later and is known already makes room: whoever wants it doesn't learn of that, but what is found
    next does, so that memory gives no more than a beat a cycle."""
    at = _behind(asked_at, end_at, asked, asked)
    last, then = at + beats - 1, asked
    while True:
        after = -1
        for k in range(BURSTS):
            if asked_at[k] > then and (after < 0 or asked_at[k] < asked_at[after]):
                after = k
        if after < 0 or first_at[after] > last:
            break
        end_at[after] += last + 1 - first_at[after]
        first_at[after] = last + 1
        last, then = end_at[after], asked_at[after]
    asked_at[place], first_at[place], end_at[place] = asked, at, at + beats - 1
    return at


@compiled
def burst(m, asked, beats):
    """A burst of weights that memory could give from cycle ``asked`` on; returns the cycle of its first beat."""
    m.s[0].bursts += 1
    return _between(m.burst_asked, m.burst_first, m.burst_end, (m.s[0].bursts - 1) % BURSTS, asked, beats)


@compiled
def read(d, a, asked, beats):
    """A read for the flash or the map that memory could give from cycle ``asked`` on; returns the cycle of its first beat.
    One that is found late (see ``flash``) doesn't wait for those after it."""
    s = a.s[0]
    at = asked
    if d.map_misses > 1:
        s.reads += 1
        at = _between(a.read_asked, a.read_first, a.read_end, (s.reads - 1) % BURSTS, asked, beats)
    elif asked >= s.dram_asked:
        s.dram_asked = asked
        at = max(at, s.dram_bus)
    return _behind(a.burst_asked, a.burst_end, asked, at) if d.streams else at
