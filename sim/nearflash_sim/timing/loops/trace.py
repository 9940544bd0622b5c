"""What happened when, for a timeline: slices of time, each on a track, written as they become known.

A slice that no longer fits is counted and not kept, so whoever reads them can tell.
"""

from __future__ import annotations

from .compiled import compiled

__all__ = ["ARRAY", "BUS", "CACHE", "COMMAND", "DIE", "DRAIN", "FIELDS", "IN", "MLP", "OTHER", "OUT", "PARTS", "POOLING",
           "note"]

#: Kinds of tracks. There's one of each but DIE, BUS and MLP, of which there are as many as dies, channels and units.
DIE, BUS, POOLING, DRAIN, CACHE, MLP = range(6)
#: What a slice is: a phase of a read, a row, a sample's drain, a group in a unit.
COMMAND, ARRAY, OUT, OTHER, IN = range(5)
PARTS = ("command", "array", "data out", "", "data in")
FIELDS = 7  #: kind, number, part, first cycle, cycle after the last, table or -1, sample or group


@compiled
def note(s, trace, kind, number, part, begin, end, table, sample):
    """``s``: the record that counts the slices of ``trace``."""
    if trace.shape[0] and end > begin:
        n = s.traced
        s.traced += 1
        if n < trace.shape[0]:
            trace[n, 0], trace[n, 1], trace[n, 2], trace[n, 3] = kind, number, part, begin
            trace[n, 4], trace[n, 5], trace[n, 6] = end, table, sample
