"""Pages of block I/O on the channels' buses, and on their way to the host (``nearflash_hw.block``: landing, sender, ledger).

A channel sends a page once a slot of the read buffer is set aside for it, which a turn over the channels does. The buffer
takes a beat a cycle, so the buses of several channels that send at once stretch; as do those that move pages to their dies,
as the write buffer gives a beat a cycle and few are read ahead. From the read buffer pages go on in the order in which they
come, and when each is in host memory is arithmetic.
"""

from __future__ import annotations

from .block_host import finish, plan_block
from .compiled import apart, compiled
from .state import INF

__all__ = ["begin_page", "blank", "end_page", "landed", "room", "room_at", "written"]


@compiled
def room_at(a, c, wanted):
    """A die of channel ``c`` has a page from cycle ``wanted`` on: when a slot can be set aside for it."""
    free = INF
    for slot in range(len(a.read_slot)):
        free = min(free, a.read_slot[slot])
    return max(max(wanted, a.channel[c].room_from), free)


@compiled
def room(d, a, c, now):
    """A slot is set aside for channel ``c``, which asks for it from cycle ``now`` on."""
    b = a.block[0]
    slot = 0
    while slot < len(a.read_slot) and a.read_slot[slot] > now:
        slot += 1
    if slot == len(a.read_slot):  # another channel has taken it: what is planned next waits for one
        return
    a.read_slot[slot] = INF
    a.channel[c].slot = slot
    a.channel[c].room = now + d.k.ROOM_GIVEN + (c - b.turn) % d.channels
    b.turn = (c + 1) % d.channels


@compiled
def _at_pace(d, a, at, fills, more):
    """From cycle ``at`` on ``more`` channels more send pages, or, where ``fills``, move them to their dies: when each is
    through."""
    b = a.block[0]
    moving = b.filling if fills else b.sending
    q16 = d.bus_beat_q16  # cycles of a beat, in 1/65536
    before, pace = max(q16, moving << 16), max(q16, moving + more << 16)
    ahead = d.k.FED_AHEAD << 15 if fills else 0
    for c in range(d.channels):
        if a.channel[c].page_end < INF and a.channel[c].page_fills == fills:
            since = at - a.channel[c].page_since << 32
            if since > 0:
                a.channel[c].page_left = max(0, a.channel[c].page_left - min(since // q16, since // before + ahead))
                a.channel[c].page_since = at
            left = a.channel[c].page_left
            a.channel[c].page_end = a.channel[c].page_since - (-max(left * q16, (left - ahead) * pace) >> 32)
    if fills:
        b.filling += more
    else:
        b.sending += more


@compiled
def begin_page(d, a, c, at, fills):
    """Channel ``c`` moves a page's beats from the cycle after ``at`` on: out, or, where it ``fills`` its die, in."""
    beats = a.table[len(a.table) - 1].beats + (d.oob_beats if fills else 0)
    a.channel[c].page_since, a.channel[c].page_left, a.channel[c].page_fills = at, beats << 16, fills
    a.channel[c].page_end = at
    _at_pace(d, a, at, fills, 1)


@compiled
def end_page(d, a, c, at):
    """It moved the last in cycle ``at``."""
    a.channel[c].page_end = INF
    _at_pace(d, a, at, a.channel[c].page_fills, -1)


@apart
def _send(d, a, tag, at):
    """The page of ``tag`` waits for the sender in cycle ``at``; the cycle in which its last beat is read from the buffer."""
    b = a.block[0]
    beats = a.table[a.tag[tag].table].beats
    begin = max(at, b.sender_free)
    last = begin + d.k.PIECE_ASK * d.page_pieces + beats - 1  # its last beat is read from the buffer
    b.sender_free = last + 1
    place = b.pages % len(a.burst)
    b.pages += 1
    a.burst[place].asked, a.burst[place].end = begin + d.k.PIECE_ASK - 1, last + d.k.PAGE_ON_BUS
    retired = last + d.k.PAGE_WRITTEN
    place = a.tag[tag].sample
    a.request[place].left -= 1
    if a.request[place].left == 0:
        _back(d, a, a.request[place].tag, retired + d.k.READ_TAG_BACK)
    if tag != a.request[place].tag:
        _back(d, a, tag, retired + d.k.READ_TAG_BACK)
    if a.request[place].left == 0:
        finish(a, place, retired + d.k.READ_DONE)
    plan_block(a)
    return last


@compiled
def landed(d, a, c, tag, end):
    """The last beat of the page of ``tag`` leaves channel ``c``'s bus in cycle ``end``."""
    a.channel[c].room = INF
    a.channel[c].room_from = end + d.k.ROOM_AGAIN
    a.block[0].landed += 1
    a.read_slot[a.channel[c].slot] = _send(d, a, tag, end + d.k.LANDED) + d.k.SLOT_BACK


@compiled
def blank(d, a, tag, now):
    """The page of ``tag`` isn't mapped, so zeros are sent; offered to the sender in cycle ``now``, which takes it then or in
    the cycle that this returns."""
    taken = max(now, a.block[0].sender_free + d.k.BLANK_NEXT)
    _send(d, a, tag, now + d.k.BLANK)
    return taken


@compiled
def written(a, asked):
    """From when on the host's write bus is free for who asks in cycle ``asked``: pages that asked before go first."""
    at = asked
    for k in range(len(a.burst)):
        if a.burst[k].asked <= asked:
            at = max(at, a.burst[k].end + 1)
    return at


@compiled
def _back(d, a, tag, at):
    """A page's tag may be taken from cycle ``at`` on; who waits for one takes it then."""
    b = a.block[0]
    a.read_tag[b.tag_tail % d.block_reads].tag, a.read_tag[b.tag_tail % d.block_reads].time = tag, at
    b.tag_tail += 1
    if b.waits_for_tag:
        b.waits_for_tag = 0
        b.issue_at = max(b.wanted, at)
