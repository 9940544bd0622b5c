"""Which reads go before others because their die reads their page (``nearflash_hw.flash.window``), or with its vector
(``nearflash_hw.flash.repeats``), cycle by cycle.

A channel's walker is at rest, about to look where a die's queue goes on, about to compare an entry, about to move one, or
about to take the first of a queue aside.
"""

from __future__ import annotations

from .compiled import compiled, within
from .longest import count_pop
from .state import INF

__all__ = ["pop", "repeat_at", "scan", "scan_at", "seen", "send_repeats", "take_repeat"]

REST, LOOK, CHECK, MOVE, BEHEAD = range(5)


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
        tail = a.die[k].tail
        came = a.die[k].head >= 0 and a.tag[tail].visible > now  # in this very cycle
        a.die[k].unseen = a.tag[tail].visible if came else INF
        a.channel[c].walker, a.channel[c].walk_at = REST, now + 1
    elif before >= 0:
        a.channel[c].walker, a.channel[c].walk_at = CHECK, now + d.k.WINDOW_NEXT
        a.channel[c].walk_tag = a.tag[before].next
    else:
        a.channel[c].walker, a.channel[c].walk_at = CHECK, now + d.k.WINDOW_FIRST
        a.channel[c].walk_tag = a.die[k].head


@compiled
def _repeats(a, k, tag):
    """Whether die ``k``'s vector answers ``tag``, if nothing has happened meanwhile."""
    under_way = a.die[k].tag
    same = a.tag[tag].key == a.tag[under_way].key
    return a.die[k].open > 0 and same and a.table[a.tag[tag].table].beats == a.table[a.tag[under_way].table].beats


@compiled
def _aside(d, a, c, k, tag, at, head):
    """``tag`` joins the repeats of die ``k`` in cycle ``at``, from the head of the queue or from behind."""
    a.tag[tag].next, a.die[k].repeats = a.die[k].repeats, tag
    a.channel[c].added, a.channel[c].added_die, a.channel[c].added_at, a.channel[c].added_head = tag, k, at, head
    if d.longest:
        count_pop(a, k, at)


@within
def _check(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    follows = _follows(a, tag, now - 1)
    moves = _row(d, a, tag) == a.die[k].row and a.die[k].before >= 0
    if moves or _repeats(a, k, tag):
        a.channel[c].walker, a.channel[c].walk_at, a.channel[c].walk_more = MOVE if moves else BEHEAD, now + 1, follows
        ends = now + 1 + (d.k.WINDOW_MOVE if moves else 1)
        a.channel[c].push_at, a.channel[c].pop_at = max(a.channel[c].push_at, ends), ends
    else:
        a.die[k].before = tag
        _go_on(d, a, c, a.tag[tag].next if follows else -1, now + 1)


@compiled
def _move(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    before, following = a.die[k].before, a.tag[tag].next
    if not a.channel[c].walk_more and following >= 0:  # it came when the walk was past seeing it
        a.channel[c].walker, a.channel[c].walk_at = REST, now + d.k.WINDOW_MOVE
        return
    a.tag[before].next = following
    if following < 0:
        a.die[k].tail = before
    if _repeats(a, k, tag):
        _aside(d, a, c, k, tag, now + 1, 0)
    else:
        a.tag[tag].next = a.die[k].head
        a.die[k].head = tag
    _go_on(d, a, c, following, now + d.k.WINDOW_MOVE)


@compiled
def _behead(d, a, c, now):
    k, tag = a.channel[c].walked, a.channel[c].walk_tag
    following = a.tag[tag].next
    a.channel[c].walker, a.channel[c].walk_at = REST, now + 1
    if a.die[k].open > 0 and (a.channel[c].walk_more or following < 0):
        a.die[k].head = following
        a.die[k].visible = INF if following < 0 else a.tag[following].visible
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
    now = max(now, a.channel[c].pop_at - 1)
    a.channel[c].pop_at = now + 1 + d.k.CHOOSE_EVERY
    tag = a.die[k].head
    if _row(d, a, tag) != a.die[k].row:
        a.die[k].row, a.die[k].left = _row(d, a, tag), d.window
    a.die[k].before, a.die[k].open = -1, 1
    seen(d, a, k, now + 1 + d.k.WINDOW_AGAIN)
    a.channel[c].walker, a.channel[c].walk_at = REST, now + 1 + d.k.WINDOW_AGAIN
    return now


@within
def send_repeats(d, a, c, k, sent, end):
    """Die ``k``'s vector goes out, ``sent`` in this cycle and until cycle ``end``, and its repeats after it; whether there
    are any."""
    added = a.channel[c].added
    if added >= 0 and a.channel[c].added_die == k and a.channel[c].added_at >= sent:  # it is found when this has been
        a.die[k].waiting += 1
        a.die[k].repeats = a.tag[added].next
        if a.channel[c].added_head:
            a.die[k].left += 1
            a.die[k].visible = a.tag[added].visible
        if a.die[k].head < 0:
            a.die[k].tail = added
        a.tag[added].next, a.die[k].head = a.die[k].head, added
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
    a.channel[c].repeat, a.channel[c].repeat_at, a.channel[c].repeats_end = a.tag[tag].next, taken + 1, end
    a.channel[c].pop_at = max(a.channel[c].pop_at, now + 2)
    a.channel[c].push_at = max(a.channel[c].push_at, now + 2)
    a.channel[c].walk_at = max(a.channel[c].walk_at, now + 1) if a.channel[c].walker == REST else now + 1
    a.channel[c].walker = REST
    return tag, end
