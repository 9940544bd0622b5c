"""The host's side of block I/O, a thread of its own beside that of the commands (``nearflash.runtime.nvme``): it sends a
request when it has one and fewer than its depth are in flight, and takes completions as they come.

Requests in flight have a place each; they wait for their fetch in the order in which they were sent.
"""

from __future__ import annotations

from .compiled import apart, compiled
from .state import INF

__all__ = ["finish", "host_at", "host_event", "plan_block"]


@compiled
def plan_block(a):
    """Set when block I/O does its next thing: the host's, a command's or page's on its way to the flash, a completion's."""
    b = a.block[0]
    on_the_way = min(min(b.intake_at, b.fetch_at), min(b.issue_at, b.write_next))
    b.next_at = min(min(b.send_at, b.land_at), min(on_the_way, b.sender_at))
    if b.posted < b.ended:
        b.next_at = min(b.next_at, max(a.ended[b.posted % len(a.request)].time, b.post_free))


@compiled
def finish(a, place, at):
    """The request at ``place`` is done: Queues may take its completion from cycle ``at`` on."""
    b = a.block[0]
    k = b.ended
    while k > b.posted and a.ended[(k - 1) % len(a.request)].time > at:
        before = a.ended[(k - 1) % len(a.request)]
        a.ended[k % len(a.request)].place, a.ended[k % len(a.request)].time = before.place, before.time
        k -= 1
    a.ended[k % len(a.request)].place, a.ended[k % len(a.request)].time = place, at
    b.ended += 1


@compiled
def host_at(d, a):
    """Set when the host sends its next request, and when it takes its next completions."""
    b = a.block[0]
    b.send_at = b.land_at = INF
    if b.sent < b.total and b.flying < b.depth:
        b.send_at = max(b.host_now, a.load[b.sent].time)
    first = INF
    for place in range(len(a.request)):
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
    a.request[place].left = a.load[b.sent].count
    a.load[b.sent].submitted = now
    a.sending[b.sent % len(a.request)] = place
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
        for place in range(len(a.request)):
            if a.request[place].visible <= now:
                a.load[a.request[place].number].completed = b.host_now
                a.request[place].number, a.request[place].visible = -1, INF
                b.flying -= 1
    else:
        _send(d, a, now)
    host_at(d, a)


