"""Until something is so: whatever comes first happens, at the translator, in the flash or behind it."""

from __future__ import annotations

import numpy as np

from .block_host import host_at
from .compiled import apart
from .features import resolve
from .state import INF
from .translator import advance
from .way_back import next_at, settle, step

__all__ = ["COMPLETE", "DRAINED", "SLICED", "TIME", "end_blocks", "wait"]

TIME, DRAINED, SLICED, COMPLETE = range(4)


@apart
def wait(d, a, m, what, which):
    """Until all that happens before cycle ``which`` has, the sample at that place is drained, so many features have left
    their slice, or the command at that place is complete."""
    while True:
        if what == TIME:
            done = next_at(d, a) >= which
        elif what == DRAINED:
            done = a.sample[which].drained >= 0
        elif what == SLICED:
            resolve(d, a, m)
            if d.streams:
                settle(d, a, m)
            done = a.s[0].sliced >= which
        else:
            done = a.command[which].visible < INF
        if done:
            return
        if not advance(d, a) and step(d, a, m) == INF:
            raise RuntimeError("what is waited for does not come and nothing is under way")


@apart
def end_blocks(d, a, m):
    """Until block I/O is at rest: the last command is complete, after which no request is sent; or there was none."""
    b, s = a.block[0], a.s[0]
    if s.command > 0:
        wait(d, a, m, np.int64(TIME), s.host_now + 1)
        b.total = b.sent
        host_at(d, a)
    while b.flying > 0 or b.sent < b.total:
        at = next_at(d, a)
        if at == INF:
            raise RuntimeError("a request does not end and nothing is under way")
        wait(d, a, m, np.int64(TIME), at + 1)
