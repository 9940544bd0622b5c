"""Lookups behind the parser: row locator, map cache, row cache, tags (``nearflash_hw.lookup``, ``.controller.map_cache``).

In order, each as soon as it can be known when. Beside block I/O the parser goes on meanwhile, as far as the locator has
room: what it asks of the host's bus keeps entries waiting that are fetched while a lookup waits for its tag. Without block
I/O each lookup is followed to the flash before the next.
"""

from __future__ import annotations

from .arrivals import arrive
from .block import asks_map
from .compiled import compiled, within
from .dram import read
from .flash import put
from .map_cache import LOOKUP, asked_at, find, translate
from .row_cache import LINES_READ, hit_read, look
from .state import FOLLOWED, INF
from .trace import CACHE, OTHER, note
from .way_back import flash_at, next_at, step

__all__ = ["advance", "enqueue", "follow"]

PLACE, ANSWER, TAG = range(3)  # what the oldest lookup waits for: where its row is, what the row cache says, a tag


@compiled
def enqueue(a, at, block, key, table, sample):
    """An item passes the scoreboard in cycle ``at`` as a lookup."""
    s = a.s[0]
    place = s.lookups & FOLLOWED - 1
    a.followed[place].at, a.followed[place].block, a.followed[place].key = at, block, key
    a.followed[place].table, a.followed[place].sample = table, sample
    s.lookups += 1


@compiled
def _place(d, a):
    """The oldest lookup that hasn't asked the map for its place does; returns whether it could be known."""
    s = a.s[0]
    i = s.placed
    if i == s.lookups or i - s.issued >= d.map_credits:
        return False
    place = i & FOLLOWED - 1
    ask, asked = a.followed[place].at, s.place_asked
    missing = asked > 0
    if missing:
        ask = a.located[i & d.k.LOCATE_QUEUE - 1]
    else:
        ask = max(ask + d.k.LOCATE, a.translated[i & d.translations - 1] + 1)  # as many before it left their queue
        ask = max(max(ask, s.map_free), a.issued[i & d.map_credits - 1] + 1)
        if d.block_reads:
            following = next_at(d, a)
            if following < ask or (following == ask and s.map_client == LOOKUP and asks_map(a, ask)):
                return False  # block I/O asks first, or may
        missing = find(d, a, a.followed[place].block, LOOKUP)
        a.located[i & d.k.LOCATE_QUEUE - 1] = ask
        asked = asked_at(d, a, ask)
    if missing and flash_at(d, a) < asked:  # the arrays' reads before aren't known
        s.place_asked = asked
        return False
    s.place_asked = 0
    a.followed[place].asked, a.followed[place].answer = ask, translate(d, a, ask, asked, missing)
    s.placed += 1
    return True


@compiled
def _from_cache(d, a, tag, issue):
    """The row of ``tag`` leaves the translator in cycle ``issue`` as a hit; it comes to the merge like a channel's."""
    s = a.s[0]
    beats = a.table[a.tag[tag].table].beats
    place = s.lines_read & LINES_READ - 1
    at = max(max(issue + 1, s.line_asked + d.k.REQUEST_EVERY), a.line_gone[place] + 1)  # LINES_READ before: it has left
    s.line_asked = at
    s.lines_read += 1
    first = read(d, a, at + d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE, beats)
    s.dram_bus = first + beats
    hit_read(d, a, s.dram_bus - 1)
    note(s, a.trace, CACHE, 0, OTHER, first, s.dram_bus, a.tag[tag].table, a.tag[tag].sample)
    a.line_gone[place] = s.hit_ended + d.line_fifo
    arrive(d, a, d.channels, tag, s.hit_ended + d.line_fifo + d.k.LINE_ARRIVE
           + (1 if beats == 1 and d.merge_buffered else 0))


@compiled
def _take_tag(d, a, issue):
    """(A tag, the cycle in which a lookup that is ready in cycle ``issue`` has it)."""
    s = a.s[0]
    if s.fresh < d.tags:
        s.fresh += 1
        return s.fresh - 1, issue
    free = a.free[s.tag_head & d.tags - 1]
    s.tag_head += 1
    return free.tag, max(issue, free.time)


@compiled
def _issue(d, a):
    """The oldest lookup whose place is known leaves for the flash or the row cache's lines; returns whether it could."""
    s = a.s[0]
    i = s.gone
    if i == s.placed:
        return False
    lookup, credit = a.followed[i & FOLLOWED - 1], i & d.map_credits - 1
    cached = d.sources > d.channels
    if s.issue_waits == PLACE:
        head = max(lookup.asked + 1, s.last_issue)
        a.translated[i & d.translations - 1] = head
        s.issue = max(head, max(lookup.answer, s.last_issue + 1)) + 1
        s.issue_waits = TAG
        if cached:
            s.issue = max(s.issue, s.found_left + 1)
            s.issue_waits = ANSWER
    if s.issue_waits == ANSWER:
        if next_at(d, a) < s.issue:  # what flash gives until then is in it
            return False
        beats = d.page_unit if d.page_unit else a.table[lookup.table].beats
        taken, hit = look(d, a, s.issue, lookup.key & d.cache_mask)
        s.issue_hit, s.issue_keep = hit, not hit and beats <= d.line_beats
        s.last_issue = a.issued[credit] = taken
        s.issued += 1
        s.issue, s.issue_waits = taken + d.k.FOUND, TAG
    if s.fresh == d.tags and s.tag_head == s.tag_tail:
        return False
    tag, issue = _take_tag(d, a, s.issue)
    if cached:
        s.found_left = issue
    else:
        s.last_issue = a.issued[credit] = issue
        s.issued += 1
    s.issue_waits = PLACE
    s.gone += 1
    a.tag[tag].page, a.tag[tag].table, a.tag[tag].sample, a.tag[tag].key = (lookup.block, lookup.table, lookup.sample,
                                                                            lookup.key)
    a.tag[tag].keep = s.issue_keep
    if s.issue_hit:
        _from_cache(d, a, tag, issue)
    else:
        put(d, a, lookup.block & (d.channels - 1), tag, issue + 1)
    return True


@compiled
def advance(d, a):
    """Lookups behind the parser go on; returns whether one could."""
    placed = _place(d, a)
    return _issue(d, a) or placed


@within
def follow(d, a, m):
    """Until it is known when there is room for the parser's next lookup: that many before it has left the locator."""
    s = a.s[0]
    room = d.k.LOCATE_QUEUE - 1
    while s.placed + (s.place_asked > 0) + room < s.lookups if d.block_reads else s.gone < s.lookups:
        if not advance(d, a) and step(d, a, m) == INF:
            raise RuntimeError("no tag comes back and nothing is under way")
