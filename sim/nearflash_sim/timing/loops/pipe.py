"""Pipelines that stand still as a whole while what leaves them waits (``nearflash_hw.primitives.float32``).

Whoever enters later leaves later, so what is found in that order knows the stalls that those before it cause.
"""

from __future__ import annotations

from .compiled import compiled

__all__ = ["CONVERT", "DENSE", "PIPES", "QUANTIZE", "STALLS", "entered", "passed", "stalled"]

CONVERT, QUANTIZE, DENSE = range(3)  # a drain's conversion, and the quantisers of pooled elements and of features
PIPES = 3
STALLS = 8  # latest ones that are kept: as many as there are stages, at least


@compiled
def entered(a, pipe, at):
    """The first cycle from ``at`` on in which the pipeline moves."""
    if at < a.pipe[pipe].end:
        for i in range(STALLS):
            k = (a.pipe[pipe].stalls + i) % STALLS
            if a.stall_from[pipe, k] <= at < a.stall_to[pipe, k]:
                at = a.stall_to[pipe, k]
    return at


@compiled
def passed(a, pipe, at, latency):
    """When what entered in cycle ``at`` is at the end, which it may not leave at once."""
    out = at + latency
    if at < a.pipe[pipe].end:
        for k in range(STALLS):
            if a.stall_from[pipe, k] > at:
                out += a.stall_to[pipe, k] - a.stall_from[pipe, k]
    return out


@compiled
def stalled(a, pipe, here, left):
    """What was at the end from cycle ``here`` on left in cycle ``left``."""
    if left > here:
        k = a.pipe[pipe].stalls % STALLS
        a.stall_from[pipe, k], a.stall_to[pipe, k] = here, left
        a.pipe[pipe].stalls += 1
        a.pipe[pipe].end = left
