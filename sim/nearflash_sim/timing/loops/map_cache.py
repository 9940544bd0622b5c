"""The map's cache after its tags: lines from DRAM, and answers (``nearflash_hw.controller.map_cache``, ``.map_lines``)."""

from __future__ import annotations

from .compiled import compiled
from .dram import read

__all__ = ["BLOCK", "LOOKUP", "asked_at", "find", "translate"]

LOOKUP, BLOCK = range(2)  # who asked last: the other goes first where both ask


@compiled
def find(d, a, page, client):
    """``client`` asks for the entry of logical ``page``: whether its line is missing, which takes its place then."""
    s = a.s[0]
    line = page >> d.map_bits
    place = line & d.map_lines - 1
    missing = a.map_tag[place] != line
    if missing:
        a.map_tag[place] = line
        s.misses += 1
    s.map_client = client
    return missing


@compiled
def asked_at(d, a, ask):
    """The line of a request of cycle ``ask`` is missing: when it is asked for, which is when fewer than may be are on their
    way."""
    return max(ask + d.k.MAP_MISS, a.line_free[a.s[0].lines % d.map_misses])


@compiled
def translate(d, a, ask, asked, missing):
    """The next request, of cycle ``ask``, whose line is asked for in cycle ``asked`` if it is ``missing``; returns the cycle
    in which its answer is at its FIFO's output."""
    return _in_order(d, a, ask, asked, missing) if d.map_misses > 1 else _alone(d, a, ask, asked, missing)


@compiled
def _line(d, a, asked):
    """When the last beat comes of a line that is asked for in cycle ``asked``."""
    s = a.s[0]
    way = d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE
    first = read(d, a, asked + way, d.k.MAP_LINE_BEATS, 1 if d.map_misses == 1 else 0)
    s.dram_bus = first + d.k.MAP_LINE_BEATS
    return s.dram_bus - 1


@compiled
def _alone(d, a, ask, asked, missing):
    """The next request waits for its line."""
    s = a.s[0]
    if not missing:
        s.map_free = ask + d.k.MAP_EVERY
        return ask + d.k.MAP_HIT
    filled = _line(d, a, asked)
    s.map_free = filled + d.k.MAP_FILLED
    return filled + d.k.MAP_FILLED + 1


@compiled
def _in_order(d, a, ask, asked, missing):
    """It is answered after those before it, and the next one is looked up meanwhile."""
    s = a.s[0]
    at = max(ask + d.k.MAP_QUEUED, s.map_served + 1)
    s.map_free = ask + d.k.MAP_EVERY
    if missing:
        s.map_free = asked + 1
        at = max(at + d.k.MAP_LINE_BEATS, _line(d, a, asked) + d.k.MAP_KEPT)
        a.line_free[s.lines % d.map_misses] = at
        s.lines += 1
    s.map_served = at
    return at + d.k.MAP_READ
