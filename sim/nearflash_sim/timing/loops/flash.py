"""The flash channels as events: die queues, schedulers, buses and the dies' phases (``nearflash_hw.flash``).

A channel does three things, each at its earliest cycle: its queue takes a command, its scheduler gives a free die its first
one, its bus begins a command phase or a data-out. What each changes takes effect in a later cycle, as through the gateware's
registers, so things of one cycle may be done in any order. With a page window there are two more (:mod:`.window`): in a
cycle a push comes first, then a repeat is taken, then the walker goes on, as each keeps the next ones waiting.

Commands come in order of time, but for those of a query whose features waited for a core whose results have no room until
vectors are in: what happens until then is done before it is known when the features were taken.
"""

from __future__ import annotations

from .arrivals import arrive
from .bus import fill_from, page_from, wants
from .compiled import apart, compiled, within
from .dies import choose_from, command_from, look_at_dies, out_from, waits
from .dram import read
from .landing import begin_page, end_page, landed, room, room_at
from .longest import count_pop, count_push, longest
from .program import commanded, filled
from .state import BUS, CHOOSE, END, INF, PUSH, REPEAT, ROOM, SCAN
from .trace import ARRAY, COMMAND, DIE, IN, OUT, note
from .trace import BUS as BUS_TRACK
from .window import pop, repeat_at, scan, scan_at, seen, send_repeats, take_repeat

__all__ = ["flash_event", "plan", "put", "put_block", "replan"]


@compiled
def plan(d, a, c):
    """Look at all dies of channel ``c``; set when it does its next thing, and what."""
    look_at_dies(d, a, c)
    _next(d, a, c)


@compiled
def _next(d, a, c):
    """Set when channel ``c`` does its next thing, and what."""
    at, what = INF, PUSH
    if d.window:
        at, what = scan_at(d, a, c), SCAN
        repeat = repeat_at(d, a, c)
        if repeat <= at:
            at, what = repeat, REPEAT
    push = max(a.channel[c].coming_at, a.channel[c].push_at)
    if push <= at:
        at, what = push, PUSH
    choose = max(a.channel[c].dies_choose, a.channel[c].choose_at)
    if choose < at:
        at, what = choose, CHOOSE
    bus = min(a.channel[c].dies_command, max(a.channel[c].dies_out, a.channel[c].out_at))
    if d.block_reads:
        page, fill = INF, INF  # out and in
        a.channel[c].room_asked = INF
        for k in range(c * d.dies, (c + 1) * d.dies):
            if a.die[k].tag >= d.tags + d.block_reads:
                fill = min(fill, a.die[k].want_out)
            elif a.die[k].tag >= d.tags:
                page = min(page, a.die[k].want_out)
        if page < INF:
            bus = min(bus, max(page, page_from(d, a, c)))
            if a.channel[c].room == INF:
                asks = room_at(a, c, page)
                if asks < at:
                    at, what = asks, ROOM
        if fill < INF:
            bus = min(bus, max(fill, fill_from(d, a, c)))
        if a.channel[c].page_end < at:
            at, what = a.channel[c].page_end, END
    bus = max(bus, a.channel[c].bus_at)
    if bus < at:
        at, what = bus, BUS
    a.channel[c].next_at, a.channel[c].next_what = at, what


@compiled
def put(d, a, c, tag, at):
    """A read command leaves the translator for channel ``c`` and is at its queue in cycle ``at``."""
    place = a.channel[c].in_tail & d.tags - 1
    a.coming[c, place].tag, a.coming[c, place].time = tag, at
    first = a.channel[c].in_head == a.channel[c].in_tail
    a.channel[c].in_tail += 1
    if first:
        a.channel[c].coming_at = at
        push = max(at, a.channel[c].push_at)
        if push <= a.channel[c].next_at:  # of what is done in one cycle, a push is first
            a.channel[c].next_at, a.channel[c].next_what = push, PUSH
    if d.block_reads:
        plan(d, a, c)


@compiled
def put_block(d, a, c, tag, now, starts):
    """A command of block I/O comes to channel ``c``'s queue in cycle ``now``, not to start before cycle ``starts``."""
    k = c * d.dies + (a.tag[tag].page >> d.channel_bits & (d.dies - 1))
    a.behind[tag] = -1
    a.tag[tag].visible = max(starts, now + (d.k.QUEUE_VISIBLE_ONE if d.dies == 1 and d.window == 0 else d.k.QUEUE_VISIBLE))
    if a.die[k].block_head < 0:
        a.die[k].block_head, a.die[k].block_visible = tag, a.tag[tag].visible
    else:
        a.behind[a.die[k].block_tail] = tag
    a.die[k].block_tail = tag
    plan(d, a, c)


@compiled
def _after(d, a, c, now, command, last):
    """Round-robin: the first die after ``last`` that wants a command phase, or else a data-out, in cycle ``now``; or -1."""
    k = last
    for _ in range(d.dies):
        k = k + 1 & d.dies - 1
        if wants(d, a, c, c * d.dies + k, command) <= now:
            return k
    return -1


@compiled
def _push(d, a, c, now):
    tag = a.coming[c, a.channel[c].in_head & d.tags - 1].tag
    a.channel[c].in_head += 1
    more = a.channel[c].in_head != a.channel[c].in_tail
    a.channel[c].coming_at = a.coming[c, a.channel[c].in_head & d.tags - 1].time if more else INF
    a.channel[c].push_at = max(a.channel[c].push_at, now + 1)
    k = c * d.dies + (a.tag[tag].page >> d.channel_bits & (d.dies - 1))
    visible = now + (d.k.QUEUE_VISIBLE_ONE if d.dies == 1 and d.window == 0 else d.k.QUEUE_VISIBLE)
    a.behind[tag], a.tag[tag].visible = -1, visible
    if a.die[k].head < 0:
        a.die[k].head, a.die[k].visible = tag, visible
        choose_from(d, a, c, k)
    else:
        a.behind[a.die[k].tail] = tag
    a.die[k].tail = tag
    if d.longest:
        count_push(a, k, now)
    if d.window:
        a.row[tag] = a.tag[tag].page >> d.channel_bits + d.die_bits
        seen(a, c, k, visible)


@compiled
def _choose(d, a, c, now):
    last = a.channel[c].last_choice
    for _ in range(d.dies):
        last = last + 1 & d.dies - 1
        if max(waits(d, a, c * d.dies + last), a.die[c * d.dies + last].free_at) <= now:
            break
    a.channel[c].last_choice = last
    k = c * d.dies + last
    one = d.dies == 1 and d.window == 0
    if d.block_reads:
        block = a.die[k].block_visible <= now and not (a.die[k].visible <= now and a.die[k].last_block)
        a.die[k].last_block = block
        if block:
            _give_block(d, a, c, k, now, one)
            return
    if d.window:
        now = pop(d, a, c, k, now)
    if d.longest:
        count_pop(a, k, now + 1)
    taken = now + (d.k.CHOSEN_ONE if one else d.k.CHOSEN)
    a.channel[c].choose_at = now + (d.k.CHOOSE_EVERY_ONE if one else d.k.CHOOSE_EVERY)
    if not one:
        a.channel[c].push_at = max(a.channel[c].push_at, now + d.k.PUSH_AFTER_POP)
    tag = a.die[k].head
    a.die[k].head = a.behind[tag]
    a.die[k].visible = INF if a.die[k].head < 0 else now  # or a cycle or two later, long before the die is free again
    _take(d, a, c, k, tag, taken)


@compiled
def _take(d, a, c, k, tag, taken):
    """Die ``k`` takes a command in cycle ``taken``."""
    a.die[k].tag, a.die[k].taken = tag, taken
    a.die[k].free_at = INF
    choose_from(d, a, c, -1)
    if a.die[k].out_end < INF:
        a.die[k].want_command = max(a.die[k].out_end, taken) + 1
        command_from(d, a, c, k)
        a.die[k].busy -= a.die[k].want_command


@within
def _give_block(d, a, c, k, now, one):
    """Die ``k`` was chosen in cycle ``now``, and it is the turn of block I/O."""
    a.channel[c].choose_at = now + (d.k.CHOOSE_EVERY_ONE if one else d.k.CHOOSE_EVERY)
    if not one:
        a.channel[c].block_push_at = max(a.channel[c].block_push_at, now + d.k.PUSH_AFTER_POP)
    tag = a.die[k].block_head
    a.die[k].block_head = a.behind[tag]
    a.die[k].block_visible = INF if a.die[k].block_head < 0 else a.tag[a.die[k].block_head].visible
    _take(d, a, c, k, tag, now + (d.k.CHOSEN_ONE if one else d.k.CHOSEN))


@compiled
def _array(d, a, tag, now):
    """A job is asked for in cycle ``now``; the cycle of its job_done."""
    s = a.s[0]
    taken = now
    if now >= s.reader_asked:
        taken = max(taken, s.reader_free)
        s.reader_asked, s.reader_free = now, taken + d.k.ARRAY_EVERY
    wait = d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE
    beats = a.table[a.tag[tag].table].beats
    state = d.k.ARRAY_COMPARED if d.map_misses == 1 else 1  # a line of the map comes in that cycle
    s.dram_bus = read(d, a, taken + d.k.ARRAY_STATE + wait, state) + state
    s.dram_bus = read(d, a, taken + d.k.ARRAY_PAGE + wait, beats) + beats
    return s.dram_bus - 1 + d.k.ARRAY_DONE


@compiled
def _ask(d, a, c, k):
    """Die ``k`` asks for its page when its page register is no longer read for others."""
    at, tag = a.die[k].asks, a.die[k].tag
    if d.window and a.channel[c].repeat_die == k:
        at = max(at, a.channel[c].repeats_end + 1)
    a.die[k].want_out = max(a.die[k].ready, _array(d, a, tag, at) + d.k.ARRAY_LEAVE)
    out_from(d, a, c, k)
    note(a.s[0], a.trace, DIE, k, ARRAY, a.die[k].asks, a.die[k].want_out, a.tag[tag].table, a.tag[tag].sample)
    a.die[k].asks = INF


@compiled
def _arrive(d, a, c, tag, beats, end):
    """The last of a vector's ``beats`` leaves the bus in cycle ``end``."""
    arrive(d, a, c, tag, end + d.k.MERGE_ARRIVE + (1 if beats == 1 and d.merge_buffered else 0))
    a.channel[c].out_at = end + 2  # the bus's output register is free again


@compiled
def _repeat(d, a, c, now):
    tag, end = take_repeat(d, a, c, now)
    a.tag[tag].again = 1
    _arrive(d, a, c, tag, a.table[a.tag[tag].table].beats, end)
    k = a.channel[c].repeat_die
    if a.channel[c].repeat >= 0:
        a.channel[c].out_at = INF
    elif a.die[k].asks < INF:
        _ask(d, a, c, k)


@compiled
def _bus(d, a, c, now):
    base = c * d.dies
    if a.channel[c].dies_command <= now:
        k = _after(d, a, c, now, True, a.channel[c].last_command)
        a.channel[c].last_command = k
        k += base
        tag = a.die[k].tag
        done = now + d.t_command
        a.channel[c].bus_at = done + 1
        a.channel[c].bus_busy += d.t_command
        a.die[k].want_command = INF
        command_from(d, a, c, -1)
        if d.block_writes and tag >= d.tags + d.block_reads:
            commanded(d, a, c, k, now, done)
            return
        row = a.tag[tag].page >> d.channel_bits + d.die_bits
        array = d.t_read
        a.tag[tag].again = 0
        if d.t_ccs > 0 and a.die[k].held == row:
            array = d.t_ccs
            a.tag[tag].again = 1
        else:
            a.channel[c].reads += 1
        a.die[k].held = row
        a.die[k].asks, a.die[k].ready = done + 1, done + array + 1
        s, t = a.s[0], a.tag[tag]
        note(s, a.trace, DIE, k, COMMAND, now, done + 1, t.table, t.sample)
        note(s, a.trace, BUS_TRACK, c, COMMAND, now, done + 1, t.table, t.sample)
        if d.window == 0 or a.channel[c].repeat < 0 or a.channel[c].repeat_die != k:
            _ask(d, a, c, k)
        return
    k = longest(d, a, c, now) if d.longest else _after(d, a, c, now, False, a.channel[c].last_out)
    a.channel[c].last_out = k
    k += base
    tag = a.die[k].tag
    beats = a.table[a.tag[tag].table].beats
    if d.block_reads and tag >= d.tags:
        _page(d, a, c, k, now)
        return
    if d.page_unit and not a.tag[tag].again:
        beats = d.page_unit
    moving = -(-beats * d.bus_beat_q16 // 65536)
    end = now + d.k.OUT_OVERHEAD + moving
    a.channel[c].bus_at = end + 1
    a.channel[c].bus_busy += end - now
    a.die[k].want_out = INF
    out_from(d, a, c, -1)
    a.die[k].free_at = now + 2
    a.die[k].out_end = end
    a.die[k].busy += end + 1
    note(a.s[0], a.trace, DIE, k, OUT, now, end + 1, a.tag[tag].table, a.tag[tag].sample)
    note(a.s[0], a.trace, BUS_TRACK, c, OUT, now, end + 1, a.tag[tag].table, a.tag[tag].sample)
    _arrive(d, a, c, tag, beats, end)
    if d.window and send_repeats(d, a, c, k, now + 1, end):
        a.channel[c].out_at = INF
    choose_from(d, a, c, k)


@compiled
def _page(d, a, c, k, now):
    """Die ``k`` begins to send or to take a page of block I/O in cycle ``now``. How long that takes is known once it has
    ended."""
    tag = a.die[k].tag
    a.channel[c].page_die, a.channel[c].page_begun, a.channel[c].page_tag = k, now, tag
    a.channel[c].bus_at = INF
    a.die[k].want_out = INF
    fills = tag >= d.tags + d.block_reads
    if not fills:  # the die may take its next command meanwhile
        a.die[k].free_at = now + 2
        a.die[k].out_end = INF
    begin_page(d, a, c, now + (d.k.IN_OVERHEAD if fills else d.k.OUT_OVERHEAD), fills)
    replan(d, a)


@apart
def _page_ended(d, a, c, end):
    """And has it moved in cycle ``end``."""
    k = a.channel[c].page_die
    begun, tag = a.channel[c].page_begun, a.channel[c].page_tag
    fills = tag >= d.tags + d.block_reads
    s, part = a.s[0], IN if fills else OUT
    note(s, a.trace, DIE, k, part, begun, end + 1, a.tag[tag].table, a.tag[tag].sample)
    note(s, a.trace, BUS_TRACK, c, part, begun, end + 1, a.tag[tag].table, a.tag[tag].sample)
    a.channel[c].bus_at = end + 1
    a.channel[c].bus_busy += end - begun
    end_page(d, a, c, end)
    if fills:
        filled(d, a, c, k, end)
    else:
        through = end + a.channel[c].page_held
        a.channel[c].block_out_at = through + 2
        a.die[k].out_end = end
        a.die[k].busy += end + 1
        if a.die[k].free_at == INF:  # it has its next command
            a.die[k].want_command = max(end, a.die[k].taken) + 1
            a.die[k].busy -= a.die[k].want_command
        landed(d, a, c, tag, through)
    replan(d, a)


@apart
def replan(d, a):
    """What a page's beginning or end changes for the other channels: its beats take turns with theirs, its slot will be
    free."""
    for c in range(d.channels):
        plan(d, a, c)


@within
def flash_event(d, a, c):
    """What channel ``c`` does next; with that, what only matters to itself in those cycles in which no read comes that isn't
    known yet, as it waits for its tag or for the row cache."""
    now = a.channel[c].next_at
    known = now if d.block_reads or d.features else now + d.k.MERGE_OUT + d.k.TAG_BACK
    while True:
        if a.channel[c].next_what == PUSH:
            _push(d, a, c, now)
        elif a.channel[c].next_what == CHOOSE:
            _choose(d, a, c, now)
        elif a.channel[c].next_what == SCAN:
            scan(d, a, c, now)
        elif a.channel[c].next_what == ROOM:
            if room(d, a, now):
                replan(d, a)
        elif a.channel[c].next_what == END:
            _page_ended(d, a, c, now)
        elif a.channel[c].next_what == REPEAT:
            _repeat(d, a, c, now)
        else:
            _bus(d, a, c, now)
        if d.block_reads:
            plan(d, a, c)
        else:
            _next(d, a, c)
        now = a.channel[c].next_at
        if a.channel[c].next_what > SCAN or now > known:
            break
