"""What is busy by turns that aren't found in order of time: the latest are kept, and who comes looks for a gap."""

from __future__ import annotations

from .compiled import compiled

__all__ = ["gap"]


@compiled
def gap(kept, at, cycles):
    """The first cycle from ``at`` on in which for so many ``cycles`` none of ``kept`` (int64 [interval, (from, to)]) is."""
    k = 0
    while k < kept.shape[0]:
        if kept[k, 0] < at + cycles and at < kept[k, 1]:
            at = kept[k, 1]
            k = 0
        else:
            k += 1
    return at
