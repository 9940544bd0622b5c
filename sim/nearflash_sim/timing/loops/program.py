"""PROGRAM and ERASE at the dies, and what they write to the device's DRAM (``nearflash_hw.flash.die``, ``.flash.array``).

A channel's dies take their pages in the order in which the PROGRAMs were sent, so each waits in its queue until it's its
turn, and lookups go by. One after the other the emulated array stores pages of all dies, while they wait for their tPROG.
"""

from __future__ import annotations

from .block_host import plan_block
from .compiled import apart, compiled
from .intervals import gap
from .state import INF
from .trace import ARRAY, COMMAND, DIE, note
from .trace import BUS as BUS_TRACK

__all__ = ["commanded", "filled", "mapper_at", "plan_writes", "small_write"]


@compiled
def plan_writes(d, a):
    """Set when the writing half of block I/O does its next thing."""
    b = a.block[0]
    b.claim_at = b.place_at = b.change_at = INF
    if b.claimed < b.write_count and b.claimed - b.mapped < d.block_writes:
        b.claim_at = max(a.piece_time[b.claimed * d.page_pieces], max(b.claim_free, b.slot_free))
    if b.placed < b.claimed and b.order_at == INF:
        b.place_at = max(a.slot[b.placed % d.block_writes].filled + d.k.FILLED, max(b.place_free, b.allocate_at))
    if b.patch_at == INF:
        b.change_at = max(b.port_free, min(mapper_at(d, a), b.trim_at))
    b.write_next = min(min(min(b.claim_at, b.place_at), min(b.change_at, b.order_at)), b.patch_at)
    plan_block(a)


@compiled
def mapper_at(d, a):
    """When the oldest page's change of the map is wanted."""
    b = a.block[0]
    if b.mapped == b.placed:
        return INF
    return max(a.slot[b.mapped % d.block_writes].settled, b.mapper_free) + d.k.MAP_WANTED


@compiled
def _dram_write(a, at, beats):
    """The first cycle from ``at`` on in which so many ``beats`` for the DRAM may begin."""
    at = gap(a.dram_written, at, beats)
    place = a.block[0].dram_writes % len(a.dram_written)
    a.block[0].dram_writes += 1
    a.dram_written[place, 0], a.dram_written[place, 1] = at, at + beats
    return at


@compiled
def small_write(d, a, at, beats):
    """An entry of the map or the superblock is to be written from cycle ``at`` on: when the memory has it."""
    b = a.block[0]
    done = _dram_write(a, max(at, b.small_free) + d.k.SMALL_SENT, beats) + beats - 1 + d.k.DRAM_WROTE
    b.small_free = done + 1
    return done


@compiled
def _array_write(d, a, asked, erases):
    """A job is asked for in cycle ``asked``; the cycle of its job_done."""
    b = a.block[0]
    at = max(asked, b.array_free) + d.k.STATE_ASKED + d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE
    if erases:
        at = _dram_write(a, at + d.k.STATE_ERASED, 1)
    else:
        beats = a.table[len(a.table) - 1].beats
        at = _dram_write(a, at + d.k.STATE_LEGAL, beats) + beats - 1
        at = _dram_write(a, at + d.k.DRAM_AGAIN, d.oob_beats) + d.oob_beats - 1
        at = _dram_write(a, at + d.k.DRAM_AGAIN, 1)
    b.array_free = at + d.k.ARRAY_WROTE
    return b.array_free


@compiled
def _settle(d, a, k, begin, cycles, erases):
    """Die ``k``'s array works from cycle ``begin`` on, for ``cycles`` at least: the cycle in which it reports."""
    reported = max(begin + cycles, _array_write(d, a, begin, erases) + d.k.ARRAY_LEAVE)
    a.die[k].free_at = reported + 1
    a.die[k].out_end = reported
    a.die[k].busy += reported + 1
    t = a.tag[a.die[k].tag]
    note(a.s[0], a.trace, DIE, k, ARRAY, begin, reported, t.table, t.sample)
    return reported


@apart
def commanded(d, a, c, k, begun, done):
    """The command phase of die ``k``'s PROGRAM or ERASE was from cycle ``begun`` to ``done``."""
    t = a.tag[a.die[k].tag]
    note(a.s[0], a.trace, DIE, k, COMMAND, begun, done + 1, t.table, t.sample)
    note(a.s[0], a.trace, BUS_TRACK, c, COMMAND, begun, done + 1, t.table, t.sample)
    a.die[k].held = -1
    if a.die[k].tag - d.tags - d.block_reads & 1:
        a.die[k].want_out = done + 1
    else:
        _settle(d, a, k, done + 1, d.t_erase, True)


@apart
def filled(d, a, c, k, end):
    """Die ``k`` has the page of its PROGRAM, the last beat in cycle ``end``; the channel's next PROGRAM may start."""
    slot = a.channel[c].feed
    following = a.slot[slot].next
    a.channel[c].feed = following
    if following >= 0:
        tag = d.tags + d.block_reads + 2 * following + 1
        a.tag[tag].visible = max(a.slot[following].starts, end + 1)
        die = c * d.dies + (a.tag[tag].page >> d.channel_bits & (d.dies - 1))
        if a.die[die].block_head == tag:
            a.die[die].block_visible = a.tag[tag].visible
    a.channel[c].programs += 1
    a.slot[slot].settled = _settle(d, a, k, end + 1, d.t_program, False) + d.k.SETTLED
    plan_writes(d, a)
