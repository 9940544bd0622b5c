"""READs of block I/O from their submission queue to the die queues (``nearflash_hw.block``), page after page.

Beside the lookups' path, which they share the map and the flash with; what they share of the host's bus isn't looked at. A
request keeps the command register until its PRP list is walked, so the next one's entry is fetched again after that.
"""

from __future__ import annotations

from .block_host import host_at, host_event, plan_block
from .compiled import apart, compiled, within
from .dram import read
from .fetch import fetch
from .flash import put_block
from .landing import written
from .state import FLYING, INF

__all__ = ["block_event", "start_blocks"]

IDLE, OPEN, PIECE, ASK, ORDER, TAG = range(6)


@compiled
def start_blocks(d, a, now):
    """The host has its first request from cycle ``now`` on."""
    a.block[0].host_now = now
    host_at(d, a)


@compiled
def _fetch(d, a):
    """The oldest request that was sent is fetched, if the one before it is through: when it is at block I/O."""
    b = a.block[0]
    if b.what != IDLE or b.fetched == b.sent:
        return
    place = a.sending[b.fetched % FLYING]
    b.fetched += 1
    entry = fetch(d, a, max(a.request[place].bell + d.k.BELL_TO_FETCH, b.fetch_free), b.register_free)
    b.fetch_free = entry + d.k.VERDICT + d.k.NEXT_FETCH
    b.place, b.left, b.page = place, a.request[place].left, a.block_first[a.request[place].number]
    b.what, b.issue_at = OPEN, max(entry + d.k.DISPATCHED + d.k.READ_OFFERED, b.free_at)


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


@within
def _piece(d, a, now):
    """When the page's host memory is known: the cycle in which its last piece is taken, from ``now`` on."""
    b = a.block[0]
    at = now
    for _ in range(d.page_pieces):
        if b.run_left == 0:  # the next host page
            known = b.run_known
            if b.run > 0:
                fetched = b.runs > 2 and (b.run - 1) % (d.beat_bytes // 8) == 0
                known = b.run_taken + d.k.WALK_NEXT
                if fetched:
                    known = (b.run_taken + d.k.WALK_FETCH + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE
                             + d.k.WALK_FETCHED)
            b.run_taken = max(known, b.piece_taken + 1)
            b.run += 1
            b.run_left = d.run_pages
            b.piece_at = b.run_taken + d.k.PIECE_CUT
        at = max(at, b.piece_at)
        b.piece_taken = at
        b.piece_at = at + d.k.PIECE_CUT
        b.run_left -= 1
    return at


@within
def _map(d, a, now, page):
    """Translation of ``page``, asked for in cycle ``now``: when its answer is there."""
    s = a.s[0]
    line = page >> d.map_bits
    place = line & d.map_lines - 1
    if a.map_tag[place] == line and a.map_from[place] <= now:
        return now + d.k.MAP_HIT + d.k.MAP_ANSWER
    s.misses += a.map_tag[place] != line  # else a lookup that was found first comes later
    a.map_tag[place], a.map_from[place] = line, now
    s.dram_bus = read(d, a, now + d.k.MAP_MISS + d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE) + d.k.MAP_LINE_BEATS
    s.map_free = max(s.map_free, s.dram_bus - 1 + d.k.MAP_FILLED)
    return s.dram_bus + d.k.MAP_FILLED + d.k.MAP_ANSWER


@compiled
def _page(d, a, tag, now):
    """``tag`` is that of the request's next page, whose host memory is wanted from cycle ``now`` on."""
    b = a.block[0]
    b.tag = tag
    a.tag[tag].page, a.tag[tag].table, a.tag[tag].sample = b.page, len(a.table) - 1, b.place
    b.what, b.issue_at = PIECE, _piece(d, a, now)


@within
def _issue(d, a, now):
    b = a.block[0]
    if b.what == OPEN or b.what == TAG:
        tag = _tag(d, a, now)
        if tag < 0:
            return
        if b.what == OPEN:
            a.request[b.place].tag = tag
            b.runs = -(-b.left * d.page_pieces // d.run_pages)
            b.run = b.run_left = 0
            b.piece_taken, b.run_known = now, now + d.k.READ_WALK
        _page(d, a, tag, now + 1)
    elif b.what == PIECE:
        if b.left == 1:
            b.register_free = now + d.k.READ_END
        b.what, b.issue_at = ASK, now + 1
    elif b.what == ASK:
        b.what, b.issue_at = ORDER, _map(d, a, now, b.page) + 1
    else:
        c = b.page & (d.channels - 1)
        if now < a.channel[c].block_push_at:
            b.issue_at = a.channel[c].block_push_at
            return
        put_block(d, a, c, b.tag, now)
        b.page += 1
        b.left -= 1
        b.what, b.issue_at = TAG, now + 1
        if b.left == 0:
            b.what, b.issue_at, b.free_at = IDLE, INF, now + 1


@compiled
def _post(d, a, now):
    """All pages of a request are in host memory: its completion reaches Queues in cycle ``now``."""
    b = a.block[0]
    a.request[a.ended[b.posted % FLYING].place].visible = written(a, now + d.k.CQE_ASK) + d.k.CQE_VISIBLE - d.k.CQE_ASK
    b.post_free = a.request[a.ended[b.posted % FLYING].place].visible + d.k.CQE_EVERY - d.k.CQE_VISIBLE
    b.posted += 1
    host_at(d, a)


@apart
def block_event(d, a):
    """What block I/O does next: the host, or the page that is on its way to the flash."""
    b = a.block[0]
    now = b.next_at
    if b.issue_at <= now:
        _issue(d, a, now)
    elif b.posted < b.ended and a.ended[b.posted % FLYING].time <= now and b.post_free <= now:
        _post(d, a, now)
    else:
        host_event(d, a, now)
    if b.what == IDLE:
        _fetch(d, a)
    plan_block(a)
