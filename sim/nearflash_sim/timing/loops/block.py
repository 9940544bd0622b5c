"""Block I/O from its submission queue on, and READs to the die queues (``nearflash_hw.block``), page after page.

Beside the lookups' path, with which they share the map, the flash and the host's bus. A request keeps the register that it
was sent to until its PRP list is walked, so the next one's entry for that register is fetched again after that, and those
behind it wait in their queue. The walker takes one command at a time.
"""

from __future__ import annotations

from nearflash.data.block_traces import WRITE

from .block_host import host_at, host_event, plan_block
from .compiled import apart, compiled, within
from .fetch import fetch_block
from .flash import put_block, replan
from .host_writes import post
from .landing import blank, send_page
from .map_cache import BLOCK, asked_at, find, translate
from .moved import UNMAPPED, page_of
from .pieces import begin_pieces, piece
from .state import INF
from .write import take, write_event

__all__ = ["asks_map", "block_event", "start_blocks"]

IDLE, OPEN, PIECE, ASK, ORDER, TAG = range(6)
READS, WRITES, TRIMS = range(3)  # registers that commands go to: of READs, of WRITEs and FLUSHes, of dataset management


@compiled
def start_blocks(d, a, now):
    """The host has its first request from cycle ``now`` on."""
    a.block[0].host_now = now
    host_at(d, a)


@compiled
def _register(a):
    """That of the oldest request that was sent and isn't fetched."""
    kind = a.load[a.request[a.sending[a.block[0].fetched % len(a.request)]].number].kind
    return kind if kind <= WRITE else kind - 1  # a WRITE's is a FLUSH's too


@compiled
def _fetch_at(d, a):
    """Set when that one is fetched, if it isn't being fetched now: in its turn, or, if it was deferred, when its register is
    empty."""
    b = a.block[0]
    if b.fetching == 0:
        b.fetch_at = INF
        if b.fetched < b.sent:
            b.fetch_at = max(a.request[a.sending[b.fetched % len(a.request)]].bell + d.k.BELL_TO_FETCH, b.fetch_free)
            if b.deferred:
                b.fetch_at = max(a.register[_register(a)].free + d.k.REGISTER_SEEN, b.fetch_free)
            b.fetch_at = max(b.fetch_at, a.s[0].fetcher_free)


@within
def _fetch(d, a, now):
    """Its fetch begins in cycle ``now``, or there's the verdict on it."""
    b = a.block[0]
    target = _register(a)
    b.fetching = 1 - b.fetching
    if b.fetching:
        b.fetch_at = fetch_block(d, a, now) + d.k.VERDICT
    elif a.register[target].free <= now:
        a.register[target].at, a.register[target].free = now, INF
        a.register[target].place = a.sending[b.fetched % len(a.request)]
        b.fetched += 1
        b.deferred, b.fetch_free = 0, now + d.k.NEXT_FETCH
    else:
        b.deferred, b.fetch_free = 1, now + d.k.DEFERRED


@compiled
def _intake_at(a):
    """Set when the intake takes its next command: a READ, or what the writing half is ready for."""
    b = a.block[0]
    writes = max(min(a.register[WRITES].at, max(a.register[TRIMS].at, b.list_free)), b.control_free)
    b.intake_at = max(b.intake_free, min(a.register[READS].at, writes))


@within
def _intake(d, a, now):
    """The intake takes a command in cycle ``now``, READs last."""
    b = a.block[0]
    target = READS
    if b.control_free <= now:
        if a.register[WRITES].at <= now:
            target = WRITES
        if a.register[TRIMS].at <= now and b.list_free <= now:
            target = TRIMS
    a.register[target].at = b.intake_free = INF
    if target != READS:
        take(d, a, target, now + d.k.READ_OFFERED)
    else:
        b.offered = a.register[target].place
        if b.what == IDLE:
            _open(d, a, now + d.k.READ_OFFERED)


@compiled
def _open(d, a, now):
    """The READ that the intake offers is opened from cycle ``now`` on."""
    b = a.block[0]
    b.place, b.offered = b.offered, -1
    b.left, b.page = a.request[b.place].left, a.load[a.request[b.place].number].first
    b.what, b.issue_at = OPEN, max(now, b.free_at)


@compiled
def _tag(d, a, now):
    """A tag for a page, wanted in cycle ``now``, or -1 if it has to wait."""
    b = a.block[0]
    if b.fresh < d.block_reads:
        b.fresh += 1
        return d.tags + b.fresh - 1
    if b.tag_head == b.tag_tail:
        b.waits_for_tag, b.wanted, b.issue_at = 1, now, INF
        return -1
    back = a.read_tag[b.tag_head % d.block_reads]
    if back.time > now:
        b.issue_at = back.time
        return -1
    b.tag_head += 1
    return back.tag


@compiled
def asks_map(a, now):
    """Whether a page's translation is asked for in cycle ``now``."""
    return a.block[0].what == ASK and a.block[0].issue_at == now


@within
def _map(d, a, now, page):
    """Translation of ``page``, asked for in cycle ``now``: when its answer is there."""
    missing = find(d, a, page, BLOCK)
    return translate(d, a, now, asked_at(d, a, now), missing) + d.k.MAP_ANSWER


@compiled
def _page(d, a, tag, now):
    """``tag`` is that of the request's next page, whose host memory is wanted from cycle ``now`` on."""
    b = a.block[0]
    b.tag = tag
    a.tag[tag].table, a.tag[tag].sample = len(a.table) - 1, b.place
    at = now
    for _ in range(d.page_pieces):
        at = piece(d, a, at)
    b.what, b.issue_at = PIECE, at


@within
def _issue(d, a, now):
    b = a.block[0]
    if b.what == OPEN or b.what == TAG:
        tag = _tag(d, a, now)
        if tag < 0:
            return
        if b.what == OPEN:
            a.request[b.place].tag = tag
            begin_pieces(d, a, b.left, now)
        _page(d, a, tag, now + 1)
    elif b.what == PIECE:
        if b.left == 1:
            b.intake_free = now + d.k.READ_END
            a.register[READS].free = b.intake_free + d.k.REGISTER_EMPTY
        b.what, b.issue_at = ASK, now + 1
    elif b.what == ASK:
        if now < a.s[0].map_free:
            b.issue_at = a.s[0].map_free
            return
        b.what, b.issue_at = ORDER, _map(d, a, now, b.page) + 1
        a.tag[b.tag].page = page_of(a, b.page)
    else:
        page = a.tag[b.tag].page
        if page == UNMAPPED:
            if not blank(d, a, b.tag, now):
                return
        else:
            c = page & (d.channels - 1)
            if now < a.channel[c].block_push_at:
                b.issue_at = a.channel[c].block_push_at
                return
            put_block(d, a, c, b.tag, now, 0)
        b.page += 1
        b.left -= 1
        b.what, b.issue_at = TAG, now + 1
        if b.left == 0:
            b.what, b.issue_at, b.free_at = IDLE, INF, now + 1
            if b.offered >= 0:
                _open(d, a, now + 1)


@compiled
def _post(d, a, now):
    """A request is done: its completion reaches Queues in cycle ``now``."""
    b = a.block[0]
    place = a.ended[b.posted % len(a.request)].place
    a.request[place].visible = post(d, a, now)
    b.posted += 1
    host_at(d, a)


@apart
def block_event(d, a):
    """What block I/O does next: the host, or what is on its way to the flash."""
    b = a.block[0]
    now = b.next_at
    if b.issue_at <= now:
        _issue(d, a, now)
    elif b.fetch_at <= now:
        _fetch(d, a, now)
    elif b.intake_at <= now:
        _intake(d, a, now)
    elif b.write_next <= now:
        write_event(d, a, now)
    elif b.posted < b.ended and a.ended[b.posted % len(a.request)].time <= now and b.post_free <= now:
        _post(d, a, now)
    elif b.sender_at <= now:  # a completion that asks in the same cycle goes first
        send_page(d, a)
        replan(d, a)  # for the slot
    else:
        host_event(d, a, now)
    _fetch_at(d, a)
    _intake_at(a)
    plan_block(a)
