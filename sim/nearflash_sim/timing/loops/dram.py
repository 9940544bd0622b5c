"""What memory gives first: beats in the order in which they were asked for, one a cycle (``primitives.interconnect``).

The flash's and the map's reads are found nearly in order of time; one that is found late doesn't wait for those after it.
Beside block I/O, whose pages take long, and streamed weights, and where several lines of the map may be on their way, the
latest are kept, so that each waits for those alone that were asked for before it: the flash's are known a command phase
ahead, and translations are found long before their reads. Bursts of weights are found in order.
"""

from __future__ import annotations

from .compiled import apart, compiled

__all__ = ["READS_KEPT", "burst", "read"]

READS_KEPT = 64


@compiled
def burst(m, asked, beats):
    """A burst of weights that memory could give from cycle ``asked`` on; returns the cycle of its first beat."""
    r = m.dram[0]
    k = 0
    while k < r.kept and m.dram_kept[k, 0] <= asked:
        r.free = max(r.free, m.dram_kept[k, 0]) + m.dram_kept[k, 1]
        k += 1
    r.kept -= k
    for i in range(r.kept):
        m.dram_kept[i, 0], m.dram_kept[i, 1] = m.dram_kept[i + k, 0], m.dram_kept[i + k, 1]
    at = max(r.free, asked)
    r.asked, r.free = asked, at + beats
    return at


@apart
def _among_others(a, asked, beats, first):
    r = a.dram[0]
    if r.kept == READS_KEPT:
        r.free = max(r.free, a.dram_kept[0, 0]) + a.dram_kept[0, 1]
        r.kept -= 1
        for i in range(r.kept):
            a.dram_kept[i, 0], a.dram_kept[i, 1] = a.dram_kept[i + 1, 0], a.dram_kept[i + 1, 1]
    at, k = r.free, 0
    while k < r.kept and a.dram_kept[k, 0] <= asked - first:
        at = max(at, a.dram_kept[k, 0]) + a.dram_kept[k, 1]
        k += 1
    for i in range(r.kept, k, -1):
        a.dram_kept[i, 0], a.dram_kept[i, 1] = a.dram_kept[i - 1, 0], a.dram_kept[i - 1, 1]
    a.dram_kept[k, 0], a.dram_kept[k, 1] = asked, beats
    r.kept += 1
    return max(at, asked) if asked >= r.asked else asked


@compiled
def read(d, a, asked, beats, first=0):
    """A read for the flash or the map that memory could give from cycle ``asked`` on; returns the cycle of its first beat.
    ``first``: 1 if it goes before others of that cycle. The flash asks twice in a row, so the map has its turn between."""
    if d.streams or d.block_reads or d.map_misses > 1:
        return _among_others(a, asked, beats, first)
    s = a.s[0]
    at = asked
    if asked >= s.dram_asked:
        s.dram_asked = asked
        at = max(at, s.dram_bus)
    return at
