"""Vectors that have come to the merge: a queue for each source, a channel or the row cache."""

from __future__ import annotations

from .compiled import compiled
from .state import INF

__all__ = ["arrive", "leave"]


@compiled
def arrive(d, a, c, tag, at):
    """The vector of ``tag`` comes from source ``c``, and may be chosen from cycle ``at`` on."""
    place = a.channel[c].merge_tail & d.tags - 1
    a.merging[c, place].tag, a.merging[c, place].time = tag, at
    if a.channel[c].merge_head == a.channel[c].merge_tail:
        a.channel[c].merge_at = at
    a.channel[c].merge_tail += 1


@compiled
def leave(d, a, c):
    """The first vector of source ``c`` is chosen; returns its tag."""
    tag = a.merging[c, a.channel[c].merge_head & d.tags - 1].tag
    a.channel[c].merge_head += 1
    more = a.channel[c].merge_head != a.channel[c].merge_tail
    a.channel[c].merge_at = a.merging[c, a.channel[c].merge_head & d.tags - 1].time if more else INF
    return tag
