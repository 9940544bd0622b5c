"""Which reads go before others because their die reads their page (``nearflash_hw.flash.window``), cycle by cycle.

A channel's walker is at rest, about to look where a die's queue goes on, about to compare an entry, or about to move one.
"""

from __future__ import annotations

from .compiled import compiled, within
from .state import INF

__all__ = ["SCAN", "pop", "scan", "scan_at", "seen"]

SCAN = 3  # beside what else a channel does
REST, LOOK, CHECK, MOVE = range(4)


@compiled
def scan_at(d, a, c):
    """When channel ``c``'s walker does its next thing."""
    if a.channel[c].walker != REST:
        return a.channel[c].walk_at
    at = INF
    for k in range(c * d.dies, (c + 1) * d.dies):
        at = min(at, a.die[k].unseen)
    return max(at, a.channel[c].walk_at)


@compiled
def seen(d, a, k, at):
    """From cycle ``at`` on there may be something to look at in die ``k``'s queue."""
    a.die[k].unseen = min(a.die[k].unseen, at)


@compiled
def _follows(a, tag, at):
    """Whether an entry follows that of ``tag``, as of cycle ``at``."""
    return a.tag[tag].next >= 0 and a.tag[a.tag[tag].next].visible <= at


@compiled
def _row(d, a, tag):
    """A die's page."""
    return a.tag[tag].page >> d.channel_bits + d.die_bits


@compiled
def _go_on(d, a, c, tag, at):
    """An entry has been dealt with, and READ of ``tag`` may be in cycle ``at``: -1 where none was there to follow."""
    k = a.channel[c].walked
    a.die[k].left -= 1
    if tag >= 0 and a.die[k].left > 0:
        a.channel[c].walker, a.channel[c].walk_at, a.channel[c].walk_tag = CHECK, at + 1, tag
    else:
        a.channel[c].walker, a.channel[c].walk_at = REST, at


@within
def _look(d, a, c, now):
    k = a.channel[c].walked
    before = a.die[k].before
    there = a.die[k].left > 0
    if there and before >= 0:
        there = _follows(a, before, now)
    elif there:
        there = a.die[k].head >= 0 and a.tag[a.die[k].head].visible <= now
    if not there:
        a.die[k].unseen = INF
        a.channel[c].walker, a.channel[c].walk_at = REST, now + 1
    elif before >= 0:
        a.channel[c].walker, a.channel[c].walk_at = CHECK, now + d.k.WINDOW_NEXT
        a.channel[c].walk_tag = a.tag[before].next
    else:
        a.channel[c].walker, a.channel[c].walk_at = CHECK, now + d.k.WINDOW_FIRST
        a.channel[c].walk_tag = a.die[k].head


@within
def _check(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    follows = _follows(a, tag, now - 1)
    if _row(d, a, tag) == a.die[k].row and a.die[k].before >= 0:
        a.channel[c].walker, a.channel[c].walk_at, a.channel[c].walk_more = MOVE, now + 1, follows
        a.channel[c].push_at = max(a.channel[c].push_at, now + 1 + d.k.WINDOW_MOVE)
    else:
        a.die[k].before = tag
        _go_on(d, a, c, a.tag[tag].next if follows else -1, now + 1)


@compiled
def _move(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    before, following = a.die[k].before, a.tag[tag].next
    a.channel[c].pop_at = now + d.k.WINDOW_MOVE
    if not a.channel[c].walk_more and following >= 0:  # it came when the walk was past seeing it
        a.channel[c].walker, a.channel[c].walk_at = REST, now + d.k.WINDOW_MOVE
        return
    a.tag[before].next = following
    if following < 0:
        a.die[k].tail = before
    a.tag[tag].next = a.die[k].head
    a.die[k].head = tag
    _go_on(d, a, c, following, now + d.k.WINDOW_MOVE)


@within
def scan(d, a, c, now):
    """The walker's next thing, in cycle ``now``."""
    if a.channel[c].walker == REST:
        k = c * d.dies
        while a.die[k].unseen > now:
            k += 1
        a.channel[c].walked = k
        a.channel[c].walker, a.channel[c].walk_at = LOOK, now + 1
    elif a.channel[c].walker == LOOK:
        _look(d, a, c, now)
    elif a.channel[c].walker == CHECK:
        _check(d, a, c, now)
    else:
        _move(d, a, c, now)


@compiled
def pop(d, a, c, k, now):
    """Die ``k`` was chosen in cycle ``now``: its first command is popped in the next, or when nothing is moved any more. The
    cycle in which it would have been chosen to be popped then."""
    if a.channel[c].walker == MOVE and a.channel[c].walk_at == now + 1:
        _move(d, a, c, now + 1)
    now = max(now, a.channel[c].pop_at - 1)
    tag = a.die[k].head
    if _row(d, a, tag) != a.die[k].row:
        a.die[k].row, a.die[k].left, a.die[k].before = _row(d, a, tag), d.window, -1
        seen(d, a, k, now + 1 + d.k.WINDOW_AGAIN)
    elif a.die[k].before == tag:
        a.die[k].before = -1
    a.channel[c].walker, a.channel[c].walk_at = REST, now + 1 + d.k.WINDOW_AGAIN
    return now
