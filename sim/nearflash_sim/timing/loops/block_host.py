"""The host's side of block I/O, a thread of its own beside that of the commands (``nearflash.runtime.nvme``): it sends a
request when it has one and fewer than its depth are in flight, and takes completions as they come.

Requests in flight have a place each; they wait for their fetch in the order in which they were sent.
"""

from __future__ import annotations

from .compiled import apart, compiled
from .state import FLYING, INF

__all__ = ["host_at", "host_event", "plan_block"]


@compiled
def plan_block(a):
    """Set when block I/O does its next thing: the host's, a page's on its way to the flash, a completion's."""
    b = a.block[0]
    b.next_at = min(min(b.send_at, b.land_at), b.issue_at)
    if b.posted < b.ended:
        b.next_at = min(b.next_at, max(a.ended[b.posted % FLYING].time, b.post_free))


@compiled
def host_at(d, a):
    """Set when the host sends its next request, and when it takes its next completions."""
    b = a.block[0]
    b.send_at = b.land_at = INF
    if b.sent < b.total and b.flying < b.depth:
        b.send_at = max(b.host_now, a.block_time[b.sent])
    first = INF
    for place in range(FLYING):
        first = min(first, a.request[place].visible)
    if first < INF:
        while first > b.host_now and b.host_now < b.irq_low:
            b.host_now += d.k.DRIVER_SETTLE
        b.land_at = b.host_now if first <= b.host_now else max(b.host_now, first + d.k.CQE_IRQ)
    plan_block(a)


@compiled
def _send(d, a, now):
    b = a.block[0]
    place = 0
    while a.request[place].number >= 0:
        place += 1
    a.request[place].number, a.request[place].bell = b.sent, now + d.k.DOORBELL
    a.request[place].left = a.block_count[b.sent]
    a.block_submitted[b.sent] = now
    a.sending[b.sent % FLYING] = place
    b.sent += 1
    b.flying += 1
    b.host_now = now + d.k.MMIO_WRITE


@apart
def host_event(d, a, now):
    """The host sends a request, or takes every completion that is there, in cycle ``now``."""
    b = a.block[0]
    if b.land_at <= now:
        b.host_now = now + d.k.MMIO_WRITE
        b.irq_low = now + d.k.IRQ_FALL
        for place in range(FLYING):
            if a.request[place].visible <= now:
                a.block_completed[a.request[place].number] = b.host_now
                a.request[place].number, a.request[place].visible = -1, INF
                b.flying -= 1
    else:
        _send(d, a, now)
    host_at(d, a)


