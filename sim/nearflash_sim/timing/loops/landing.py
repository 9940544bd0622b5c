"""Pages of block I/O on the channels' buses, and on their way to the host (``nearflash_hw.block``: landing, sender, ledger).

A channel sends a page once a slot of the read buffer is set aside for it, which a turn over the channels does. The buffer
takes a beat a cycle, of the channels in turn, so the buses of several that send at once stretch: then each cycle is gone
through. So do those that move pages to their dies, as the write buffer gives a beat a cycle and few are read ahead. From the
read buffer pages go on in the order in which they come, each once it is known what has the host's write bus before it.
"""

from __future__ import annotations

from .block_host import finish, plan_block
from .compiled import apart, compiled
from .state import INF

LEFT, WAIT, HELD = range(3)  # of a channel: beats of its page, 1/65536 cycles until the next is due, a beat has left the bus

__all__ = ["begin_page", "blank", "end_page", "landed", "room", "room_at", "send_page"]


@compiled
def room_at(a, c, wanted):
    """A die of channel ``c`` has a page from cycle ``wanted`` on, which asks for a slot: when the turn may go on, or is at
    a channel that asks, and a slot is free."""
    b = a.block[0]
    a.channel[c].room_asked = max(wanted, a.channel[c].room_from)
    at = max(a.channel[c].room_asked, b.turn_at)
    if a.channel[b.turn].room_asked <= at:
        free = INF
        for slot in range(len(a.read_slot)):
            free = min(free, a.read_slot[slot])
        at = max(at, free)
    return at


@compiled
def room(d, a, now):
    """A channel asks in cycle ``now``: that whose turn it is gets a slot, or the turn goes on. Returns whether one did."""
    b = a.block[0]
    if b.turn_at > now:
        return False
    c = b.turn
    slot = 0
    while slot < len(a.read_slot) and a.read_slot[slot] > now:
        slot += 1
    gives = a.channel[c].room_asked <= now
    if gives and slot == len(a.read_slot):  # another channel has taken it: what is planned next waits for one
        return False
    if gives:
        a.read_slot[slot] = INF
        a.channel[c].slot, a.channel[c].room, a.channel[c].room_asked = slot, now + d.k.ROOM_GIVEN, INF
    b.turn, b.turn_at = (c + 1) % d.channels, now + 1
    return gives


@compiled
def _cycle(d, beats):
    """The read buffer takes a beat, and each bus moves its next one, if that is due and the one before has gone; returns
    whose was taken."""
    n, taken = d.channels, -1
    for i in range(n):
        c = (beats[n, LEFT] + 1 + i) % n
        if beats[c, HELD]:
            taken = beats[n, LEFT] = c
            beats[c, HELD] = 0
            break
    for c in range(n):
        if beats[c, LEFT] > 0:
            if beats[c, WAIT] >= 0:
                beats[c, WAIT] -= 1 << 16
            elif beats[c, HELD] == 0:
                beats[c, WAIT] += d.bus_beat_q16 - (1 << 16)
                beats[c, LEFT] -= 1
                beats[c, HELD] = 1
    return taken


@apart
def _move(d, a, until):
    """All cycles before ``until``."""
    b, beats = a.block[0], a.beats[0]
    if b.sending == 0:
        for c in range(d.channels):
            beats[c, HELD] = 0
        b.beats_at = until
    while b.beats_at < until:
        _cycle(d, beats)
        for c in range(d.channels):
            if beats[c, LEFT] == 0 and a.channel[c].page_sent == 0:
                a.channel[c].page_sent = 1
                if a.channel[c].page_end == INF:
                    a.channel[c].page_end, a.channel[c].page_held = b.beats_at, 0
        b.beats_at += 1


@compiled
def _alone(d, beats):
    """The channel that sends, if none else does or has a beat in the way; or -1."""
    sender = -1
    for c in range(d.channels):
        if beats[c, LEFT] > 0:
            if sender >= 0:
                return -1
            sender = c
    for c in range(d.channels):
        if beats[c, HELD] and c != sender:
            return -1
    return sender


@apart
def _look_ahead(d, a):
    """When the next page has left its bus, as far as is known now, and is through the read buffer's turns."""
    at, beats = a.block[0].beats_at, a.beats[1]
    for c in range(d.channels + 1):
        for k in range(3):
            beats[c, k] = a.beats[0, c, k]
    left = 0
    for c in range(d.channels):
        if beats[c, LEFT] > 0:
            a.channel[c].page_end = INF
            left += 1
    first = False
    while left > 0 and not first:
        c = _alone(d, beats)
        if c >= 0:
            a.channel[c].page_end = at + (beats[c, WAIT] + (beats[c, LEFT] - 1) * d.bus_beat_q16 >> 16) + 1
            a.channel[c].page_held = 0
            return
        _cycle(d, beats)
        for c in range(d.channels):
            if beats[c, LEFT] == 0 and a.beats[0, c, LEFT] > 0:
                a.channel[c].page_end, a.channel[c].page_held = at, 0
                first = True
        at += 1
    for c in range(d.channels):
        while a.beats[0, c, LEFT] > 0 and a.channel[c].page_end < INF and beats[c, HELD]:
            taken = _cycle(d, beats)
            if taken >= 0 and a.channel[taken].page_end < INF:
                a.channel[taken].page_held = at - 1 - a.channel[taken].page_end
            at += 1


@compiled
def _at_pace(d, a, at, more):
    """From cycle ``at`` on ``more`` channels more move pages to their dies: when each is through."""
    b = a.block[0]
    q16 = d.bus_beat_q16  # cycles of a beat, in 1/65536
    before, pace = max(q16, b.filling << 16), max(q16, b.filling + more << 16)
    ahead = d.k.FED_AHEAD << 15
    for c in range(d.channels):
        if a.channel[c].page_end < INF and a.channel[c].page_fills:
            since = at - a.channel[c].page_since << 32
            if since > 0:
                a.channel[c].page_left = max(0, a.channel[c].page_left - min(since // q16, since // before + ahead))
                a.channel[c].page_since = at
            left = a.channel[c].page_left
            a.channel[c].page_end = a.channel[c].page_since - (-max(left * q16, (left - ahead) * pace) >> 32)
    b.filling += more


@compiled
def begin_page(d, a, c, at, fills):
    """Channel ``c`` moves a page's beats from the cycle after ``at`` on: out, or, where it ``fills`` its die, in."""
    beats = a.table[len(a.table) - 1].beats
    a.channel[c].page_fills = fills
    if fills:
        a.channel[c].page_since, a.channel[c].page_left = at, beats + d.oob_beats << 16
        a.channel[c].page_end = at
        _at_pace(d, a, at, 1)
    else:
        _move(d, a, at + 1)
        a.beats[0, c, LEFT], a.beats[0, c, WAIT] = beats, d.bus_beat_q16 - (1 << 16) - 1
        a.channel[c].page_sent = 0
        a.block[0].sending += 1
        _look_ahead(d, a)


@compiled
def end_page(d, a, c, at):
    """It moved the last in cycle ``at``."""
    a.channel[c].page_end = INF
    if a.channel[c].page_fills:
        _at_pace(d, a, at, -1)
    else:
        a.channel[c].page_sent = 1
        _move(d, a, at + 1)
        a.block[0].sending -= 1
        _look_ahead(d, a)


@compiled
def _offer(d, a, tag, slot, at):
    """The sender may take the page of ``tag`` from cycle ``at`` on, from ``slot``; -1: it isn't in the read buffer."""
    b = a.block[0]
    place = b.offered_pages % len(a.page)
    b.offered_pages += 1
    a.page[place].tag, a.page[place].slot, a.page[place].at = tag, slot, at
    _next_page(d, a)


@compiled
def _taken(d, a):
    """(When the sender takes its next page, whether the one before still has beats on their way then)."""
    b = a.block[0]
    begin = max(a.page[b.pages % len(a.page)].at, b.sender_free)
    return begin, begin <= b.sender_free + d.k.PAGE_BEHIND


@compiled
def _next_page(d, a):
    """Set when what the sender makes of its next page is known: before it, a completion may come to the write bus."""
    b = a.block[0]
    b.sender_at = INF
    if b.pages < b.offered_pages:
        begin, behind = _taken(d, a)
        b.sender_at = begin + (d.k.PAGE_GRANTED if behind else d.k.PAGE_OFFERED) - d.k.CQE_ASK
    plan_block(a)


@apart
def send_page(d, a):
    """The sender's next page goes to the host."""
    b = a.block[0]
    page = a.page[b.pages % len(a.page)]
    tag = page.tag
    beats = a.table[a.tag[tag].table].beats
    begin, behind = _taken(d, a)
    last = begin + d.k.PIECE_ASK * d.page_pieces + beats - 1 + (0 if behind else d.k.PAGE_STALL)  # read from the buffer
    last += max(0, b.bus_free - 1 - (last + d.k.PAGE_ON_BUS - beats))
    b.bus_free = last + d.k.PAGE_ON_BUS + 1
    b.sender_free = last + 1
    b.pages += 1
    if page.slot >= 0:
        a.read_slot[page.slot] = last + d.k.SLOT_BACK
    if b.blank_waits:
        b.blank_waits, b.issue_at = 0, max(b.wanted, b.sender_free - d.k.BLANK_NEXT)
    retired = last + d.k.PAGE_WRITTEN
    place = a.tag[tag].sample
    a.request[place].left -= 1
    if a.request[place].left == 0:
        _back(d, a, a.request[place].tag, retired + d.k.READ_TAG_BACK)
    if tag != a.request[place].tag:
        _back(d, a, tag, retired + d.k.READ_TAG_BACK)
    if a.request[place].left == 0:
        finish(a, place, retired + d.k.READ_DONE)
    _next_page(d, a)


@compiled
def landed(d, a, c, tag, end):
    """The last beat of the page of ``tag`` comes from channel ``c`` in cycle ``end``."""
    a.channel[c].room = INF
    a.channel[c].room_from = end + d.k.ROOM_AGAIN
    a.block[0].landed += 1
    _offer(d, a, tag, a.channel[c].slot, end + d.k.LANDED)


@compiled
def blank(d, a, tag, now):
    """The page of ``tag`` isn't mapped, so zeros are sent; returns whether it is taken for the sender in cycle ``now``: else
    it waits for others."""
    b = a.block[0]
    if b.pages < b.offered_pages:
        b.blank_waits, b.wanted, b.issue_at = 1, now, INF
        return False
    if now < b.sender_free - d.k.BLANK_NEXT:
        b.issue_at = b.sender_free - d.k.BLANK_NEXT
        return False
    _offer(d, a, tag, -1, now + d.k.BLANK)
    return True


@compiled
def _back(d, a, tag, at):
    """A page's tag may be taken from cycle ``at`` on; who waits for one takes it then."""
    b = a.block[0]
    a.read_tag[b.tag_tail % d.block_reads].tag, a.read_tag[b.tag_tail % d.block_reads].time = tag, at
    b.tag_tail += 1
    if b.waits_for_tag:
        b.waits_for_tag = 0
        b.issue_at = max(b.wanted, at)
