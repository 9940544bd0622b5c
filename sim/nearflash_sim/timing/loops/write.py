"""WRITEs, FLUSHes and lists of ranges to unmap, behind block I/O's intake (``nearflash_hw.block``, ``.controller.ftl``).

One WRITE or FLUSH at a time, in order: each logical block of a WRITE claims a slot of the write buffer and is read from the
host, gets the log's next page, goes to its die (:mod:`.program`), and once it is programmed the map is changed and the slot
is free again. A list, once it is read, is walked beside them, a change of the map for each block. The log's pages come in
order; the first of each block brings an ERASE with it, the first beyond what the superblock reserves a write of that.
"""

from __future__ import annotations

from nearflash.data.block_traces import FLUSH, WRITE

from .block_host import finish
from .compiled import apart, compiled
from .flash import put_block
from .host_reads import read_block
from .moved import UNMAPPED, move
from .pieces import begin_pieces, piece
from .program import mapper_at, plan_writes, small_write
from .state import INF

__all__ = ["take", "write_event"]

MAPPER, TRIMMER = range(2)


@apart
def take(d, a, target, now):
    """The command in register ``target``, which isn't a READ, is taken from the intake in cycle ``now``."""
    b = a.block[0]
    place = a.register[target].place
    request = a.load[a.request[place].number]
    b.control_free = INF
    last = now
    if request.kind == WRITE:
        begin_pieces(d, a, request.count, now)
        for i in range(request.count * d.page_pieces):
            last = piece(d, a, last)
            a.piece_time[i] = last + d.piece_store
        b.write_place, b.write_first, b.write_count = place, request.first, request.count
        b.claimed = b.placed = b.mapped = 0
    elif request.kind == FLUSH:
        b.control_free = small_write(d, a, now + d.k.FLUSH_SENT, d.small_beats) + d.k.FLUSHED
        b.durable = b.cursor
        finish(a, place, b.control_free + d.k.FINISHED_SEEN)
    else:
        begin_pieces(d, a, 1, now)
        last = piece(d, a, now)
        end = read_block(d, a, last + d.piece_store + 1, d.small_beats) - 1
        b.control_free, b.list_free = end + d.k.LISTED, INF
        b.trim_place, b.trim_at, b.trim_block, b.trim_left = place, end + d.k.LIST_WALK, request.first, request.count
    b.intake_free = last + d.k.READ_END
    a.register[target].free = b.intake_free + d.k.REGISTER_EMPTY
    plan_writes(d, a)


@compiled
def _claim(d, a, now):
    """The next logical block has its slot in cycle ``now``, and its pieces are requested."""
    b = a.block[0]
    end, at = 0, now + 1
    for i in range(b.claimed * d.page_pieces, (b.claimed + 1) * d.page_pieces):
        at = max(at, a.piece_time[i]) + 1
        end = read_block(d, a, at, a.table[len(a.table) - 1].beats // d.page_pieces)
        at += 1
    a.slot[b.claimed % d.block_writes].filled = end - 1
    b.claim_free = at
    b.claimed += 1


@compiled
def _place(d, a, now):
    """The oldest block that has no page yet gets the log's next one in cycle ``now``. What would lie beyond the log begins
    anew, and is counted: the gateware refuses it."""
    b = a.block[0]
    slot = b.placed % d.block_writes
    page = b.cursor & (d.total_pages - 1)
    b.beyond += b.cursor >= d.total_pages
    a.slot[slot].page, a.slot[slot].block = page, b.write_first + b.placed
    a.slot[slot].settled, a.slot[slot].starts = INF, now + d.k.FED
    b.erases = (page >> d.channel_bits + d.die_bits & (d.block_pages - 1)) == 0
    b.allocate_at = now + 1
    if b.cursor == b.durable:
        row = d.channels * d.dies * d.block_pages
        b.durable = (b.cursor // row + 1) * row
        b.allocate_at = small_write(d, a, now + d.k.RESERVED, d.small_beats) + 1
    b.cursor += 1
    b.placed += 1
    b.order_at = now + 1


@compiled
def _order(d, a, now):
    """Its ERASE, if there is one, and then its PROGRAM go to its channel, in cycle ``now`` if the queue takes them."""
    b = a.block[0]
    slot = (b.placed - 1) % d.block_writes
    c = a.slot[slot].page & (d.channels - 1)
    if now < a.channel[c].block_push_at:
        b.order_at = a.channel[c].block_push_at
        return
    tag = d.tags + d.block_reads + 2 * slot + 1 - b.erases
    a.tag[tag].page, a.tag[tag].table, a.tag[tag].sample = a.slot[slot].page, len(a.table) - 1, b.write_place
    starts = 0
    if b.erases:
        b.order_at = now + 1
    else:
        b.order_at, b.place_free = INF, now + 1
        a.slot[slot].next = -1
        if a.channel[c].feed < 0:
            a.channel[c].feed = slot
            starts = a.slot[slot].starts
        else:
            a.slot[a.channel[c].feed_tail].next = slot
            starts = INF
        a.channel[c].feed_tail = slot
    b.erases = 0
    put_block(d, a, c, tag, now, starts)


@compiled
def _change(d, a, now):
    """A change of the map is taken in cycle ``now``, in turn where two wait."""
    b = a.block[0]
    if b.trim_at <= now and mapper_at(d, a) <= now:
        b.changes = 1 - b.changes
    else:
        b.changes = TRIMMER if b.trim_at <= now else MAPPER
    b.patch_at = small_write(d, a, now + d.k.MAP_SENT, 1) + 1


@compiled
def _patch(d, a, now):
    """It is in DRAM, and the map's cache learns of it in cycle ``now``."""
    b = a.block[0]
    a.s[0].map_free = max(a.s[0].map_free, now + d.k.MAP_EVERY)
    done = now + d.k.MAP_EVERY
    b.patch_at, b.port_free = INF, done + 1
    if b.changes == MAPPER:
        slot = b.mapped % d.block_writes
        move(a, a.slot[slot].block, a.slot[slot].page)
        if b.claimed - b.mapped == d.block_writes:
            b.slot_free = done + 1
        b.mapped += 1
        b.mapper_free = done + 1
        if b.mapped == b.write_count:
            b.write_count = b.claimed = b.placed = b.mapped = 0
            b.control_free = done + d.k.WRITE_DONE
            finish(a, b.write_place, b.control_free + d.k.FINISHED_SEEN)
    else:
        move(a, b.trim_block, UNMAPPED)
        b.trim_block += 1
        b.trim_left -= 1
        b.trim_at = done + 1
        if b.trim_left == 0:
            b.trim_at, b.list_free = INF, done + d.k.WRITE_DONE
            finish(a, b.trim_place, b.list_free + d.k.FINISHED_SEEN)


@apart
def write_event(d, a, now):
    """What the writing half does next."""
    b = a.block[0]
    if b.patch_at <= now:
        _patch(d, a, now)
    elif b.change_at <= now:
        _change(d, a, now)
    elif b.order_at <= now:
        _order(d, a, now)
    elif b.place_at <= now:
        _place(d, a, now)
    else:
        _claim(d, a, now)
    plan_writes(d, a)
