"""The host's thread of the commands (``nearflash.runtime``), as :func:`nearflash_sim.timing.rtl.measure` has it: it sends
another when it sees one complete."""

from __future__ import annotations

from .compiled import compiled
from .state import COMMANDS, INF

__all__ = ["next_sent", "second_sent", "sees"]


@compiled
def sees(d, a, visible):
    """The host waits for a completion that is in its memory in cycle ``visible``: the cycle in which it sees it."""
    s = a.s[0]
    now = s.host_now
    while visible > now:
        now = now + d.k.DRIVER_SETTLE if now < s.irq_low else max(now, visible + d.k.CQE_IRQ)
    return now


@compiled
def next_sent(d, a):
    """The cycle in which the host sends its next command; INF as long as that isn't known."""
    s = a.s[0]
    if s.command == s.total:
        return INF
    at = s.host_now
    if s.command - s.landed == s.depth:
        visible = a.command[s.landed % COMMANDS].visible
        if visible == INF:
            return INF
        at = sees(d, a, visible) + d.k.MMIO_WRITE
    return max(at, s.after)


@compiled
def second_sent(d, a):
    """The same of the one after it; only if a completion isn't waited for between them."""
    s = a.s[0]
    if s.command + 1 >= s.total or s.command + 1 - s.landed >= s.depth:
        return INF
    return next_sent(d, a) + d.k.MMIO_WRITE
