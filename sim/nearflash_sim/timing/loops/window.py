"""Which reads go before others because their die reads their page (``nearflash_hw.flash.window``), or with its vector
(``nearflash_hw.flash.repeats``), cycle by cycle.

A channel's walker is at rest, about to look where a die's queue goes on, about to compare an entry, about to move one, or
about to take the first of a queue aside.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled, within
from .dies import choose_from
from .longest import count_pop
from .state import INF

__all__ = ["pop", "repeat_at", "scan", "scan_at", "seen", "send_repeats", "take_repeat"]

REST, LOOK, CHECK, MOVE, BEHEAD = range(5)
CHECK_EVERY = 2  # cycles between two comparisons
AHEAD = 32  # entries at most that are looked at before their cycles: the walk may be broken off


@compiled
def scan_at(d, a, c):
    """When channel ``c``'s walker does its next thing."""
    return a.channel[c].walk_at if a.channel[c].walker != REST else max(a.channel[c].dies_unseen, a.channel[c].walk_at)


@compiled
def seen(a, c, k, at):
    """From cycle ``at`` on there may be something to look at in the queue of die ``k`` of channel ``c``."""
    a.die[k].unseen = min(a.die[k].unseen, at)
    a.channel[c].dies_unseen = min(a.channel[c].dies_unseen, at)


@compiled
def _follows(a, tag, at):
    """Whether an entry follows that of ``tag``, as of cycle ``at``."""
    return a.behind[tag] >= 0 and a.tag[a.behind[tag]].visible <= at


@compiled
def _begin_check(d, a, c, tag, at):
    """From cycle ``at``, at least two from now, the walker compares, beginning with ``tag``. An entry of another page, which
    the die's vector can't answer either, only takes its cycles if one follows: the next event is what comes after those."""
    k = a.channel[c].walked
    row, most = a.die[k].row, min(a.die[k].left - 1, AHEAD)
    if a.channel[c].repeat >= 0:  # which the walk is broken off for
        most = min(most, (repeat_at(d, a, c) - at) // CHECK_EVERY + 1)
    a.channel[c].walker, a.channel[c].walk_from, a.channel[c].walk_first = CHECK, at, tag
    passed, before, here = 0, a.die[k].before, np.uint64(tag)
    while passed < most and a.row[here] != row and a.behind[here] >= 0:  # visible by then, as it was pushed before
        before = np.int64(here)
        here = np.uint64(a.behind[here])
        passed += 1
    a.channel[c].walk_before, a.channel[c].walk_tag, a.channel[c].walk_passed = before, np.int64(here), passed
    a.channel[c].walk_at = at + CHECK_EVERY * passed


@compiled
def _break_off(a, c, now):
    """The walker rests from cycle ``now`` on. What it compared before and passed over stays so."""
    if a.channel[c].walker == CHECK:
        k, tag = a.channel[c].walked, a.channel[c].walk_first
        passed = (now - a.channel[c].walk_from + CHECK_EVERY - 1) // CHECK_EVERY
        for _ in range(min(a.channel[c].walk_passed, passed)):
            a.die[k].before = tag
            a.die[k].left -= 1
            tag = a.behind[tag]
    a.channel[c].walker = REST


@compiled
def _go_on(d, a, c, tag, at):
    """An entry has been dealt with, and READ of ``tag`` may be in cycle ``at``: -1 where none was there to follow."""
    k = a.channel[c].walked
    a.die[k].left -= 1
    if tag >= 0 and a.die[k].left > 0:
        _begin_check(d, a, c, tag, at + 1)
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
        at = INF
        for i in range(c * d.dies, (c + 1) * d.dies):
            at = min(at, a.die[i].unseen)
        a.channel[c].dies_unseen = at
        a.channel[c].walker, a.channel[c].walk_at = REST, now + 1
    elif before >= 0:
        _begin_check(d, a, c, a.behind[before], now + d.k.WINDOW_NEXT)
    else:
        _begin_check(d, a, c, a.die[k].head, now + d.k.WINDOW_FIRST)


@compiled
def _repeats(a, k, tag):
    """Whether die ``k``'s vector answers ``tag``, if nothing has happened meanwhile."""
    under_way = a.die[k].tag
    same = a.tag[tag].key == a.tag[under_way].key
    return a.die[k].open > 0 and same and a.table[a.tag[tag].table].beats == a.table[a.tag[under_way].table].beats


@compiled
def _aside(d, a, c, k, tag, at, head):
    """``tag`` joins the repeats of die ``k`` in cycle ``at``, from the head of the queue or from behind."""
    a.behind[tag], a.die[k].repeats = a.die[k].repeats, tag
    a.channel[c].added, a.channel[c].added_die, a.channel[c].added_at, a.channel[c].added_head = tag, k, at, head
    if d.longest:
        count_pop(a, k, at)


@within
def _check(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    a.die[k].before = a.channel[c].walk_before
    a.die[k].left -= a.channel[c].walk_passed
    follows = _follows(a, tag, now - 1)
    moves = a.row[tag] == a.die[k].row and a.die[k].before >= 0
    if moves or _repeats(a, k, tag):
        a.channel[c].walker, a.channel[c].walk_at, a.channel[c].walk_more = MOVE if moves else BEHEAD, now + 1, follows
        ends = now + 1 + (d.k.WINDOW_MOVE if moves else 1)
        a.channel[c].push_at, a.channel[c].pop_at = max(a.channel[c].push_at, ends), ends
    else:
        a.die[k].before = tag
        _go_on(d, a, c, a.behind[tag] if follows else -1, now + 1)


@compiled
def _move(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    before, following = a.die[k].before, a.behind[tag]
    if not a.channel[c].walk_more and following >= 0:  # it came when the walk was past seeing it
        a.channel[c].walker, a.channel[c].walk_at = REST, now + d.k.WINDOW_MOVE
        return
    a.behind[before] = following
    if following < 0:
        a.die[k].tail = before
    if _repeats(a, k, tag):
        _aside(d, a, c, k, tag, now + 1, 0)
    else:
        a.behind[tag] = a.die[k].head
        a.die[k].head = tag
    _go_on(d, a, c, following, now + d.k.WINDOW_MOVE)


@compiled
def _behead(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    following = a.behind[tag]
    a.channel[c].walker, a.channel[c].walk_at = REST, now + 1
    if a.die[k].open > 0 and (a.channel[c].walk_more or following < 0):
        a.die[k].head = following
        a.die[k].visible = INF if following < 0 else a.tag[following].visible
        choose_from(d, a, c, -1)
        a.die[k].left -= 1
        _aside(d, a, c, k, tag, now, 1)


@within
def scan(d, a, c, now):
    """The walker's next thing, in cycle ``now``."""
    if a.channel[c].walker == REST:
        k = c * d.dies
        while a.die[k].unseen > now:
            k += 1
        a.channel[c].walked = k
        before = a.die[k].before
        if before >= 0 and a.die[k].left > 0 and _follows(a, before, now + 1):  # what could change that ends the walk too
            _begin_check(d, a, c, a.behind[before], now + 1 + d.k.WINDOW_NEXT)
        else:
            a.channel[c].walker, a.channel[c].walk_at = LOOK, now + 1
    elif a.channel[c].walker == LOOK:
        _look(d, a, c, now)
    elif a.channel[c].walker == CHECK:
        _check(d, a, c, now)
    elif a.channel[c].walker == MOVE:
        _move(d, a, c, now)
    else:
        _behead(d, a, c, now)


@compiled
def pop(d, a, c, k, now):
    """Die ``k`` was chosen in cycle ``now``: its first command is popped in the next, or when nothing is moved any more. The
    cycle in which it would have been chosen to be popped then."""
    if a.channel[c].walk_at == now + 1:
        if a.channel[c].walker == MOVE:
            _move(d, a, c, now + 1)
        elif a.channel[c].walker == BEHEAD:
            _behead(d, a, c, now + 1)
    _break_off(a, c, now + 1)
    now = max(now, a.channel[c].pop_at - 1)
    a.channel[c].pop_at = now + 1 + d.k.CHOOSE_EVERY
    tag = a.die[k].head
    if a.row[tag] != a.die[k].row:
        a.die[k].row, a.die[k].left = a.row[tag], d.window
    a.die[k].before, a.die[k].open = -1, 1
    seen(a, c, k, now + 1 + d.k.WINDOW_AGAIN)
    a.channel[c].walk_at = now + 1 + d.k.WINDOW_AGAIN
    return now


@within
def send_repeats(d, a, c, k, sent, end):
    """Die ``k``'s vector goes out, ``sent`` in this cycle and until cycle ``end``, and its repeats after it; whether there
    are any."""
    added = a.channel[c].added
    if added >= 0 and a.channel[c].added_die == k and a.channel[c].added_at >= sent:  # it is found when this has been
        a.die[k].waiting += 1
        a.die[k].repeats = a.behind[added]
        if a.channel[c].added_head:
            a.die[k].left += 1
            a.die[k].visible = a.tag[added].visible
        if a.die[k].head < 0:
            a.die[k].tail = added
        a.behind[added], a.die[k].head = a.die[k].head, added
    a.channel[c].added = -1
    a.channel[c].repeat, a.channel[c].repeat_die = a.die[k].repeats, k
    a.channel[c].repeat_at, a.channel[c].repeats_end = sent + 1, end
    a.die[k].repeats, a.die[k].open = -1, 0
    return a.channel[c].repeat >= 0


@compiled
def repeat_at(d, a, c):
    """When channel ``c``'s queue gives the next repeat."""
    return max(a.channel[c].repeat_at, a.channel[c].pop_at) if a.channel[c].repeat >= 0 else INF


@within
def take_repeat(d, a, c, now):
    """The queue gives a repeat in cycle ``now``: (its tag, the cycle of its last beat)."""
    tag = a.channel[c].repeat
    taken = max(now + d.k.REPEAT_GIVEN, a.channel[c].repeats_end + 1)
    end = taken + a.table[a.tag[tag].table].beats
    a.channel[c].repeat, a.channel[c].repeat_at, a.channel[c].repeats_end = a.behind[tag], taken + 1, end
    a.channel[c].pop_at = max(a.channel[c].pop_at, now + 2)
    a.channel[c].push_at = max(a.channel[c].push_at, now + 2)
    a.channel[c].walk_at = max(a.channel[c].walk_at, now + 1) if a.channel[c].walker == REST else now + 1
    _break_off(a, c, now)
    return tag, end
