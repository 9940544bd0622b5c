"""The flash channels as events: die queues, schedulers, buses and the dies' phases (``nearflash_hw.flash``).

A channel does three things, each at its earliest cycle: its queue takes a command, its scheduler gives a free die its first
one, its bus begins a command phase or a data-out. What each changes takes effect in a later cycle, as through the gateware's
registers, so things of one cycle may be done in any order. With a page window there is a fourth (:mod:`.window`), which of
several in a cycle is done first: it keeps the others waiting.

Commands come in order of time, but for those of a query whose features waited for a core whose results have no room until
vectors are in: what happens until then is done before it is known when the features were taken.
"""

from __future__ import annotations

from .compiled import compiled, within
from .dram import read
from .longest import count_pop, count_push, longest
from .state import INF
from .trace import ARRAY, COMMAND, DIE, OUT, note
from .trace import BUS as BUS_TRACK
from .window import SCAN, pop, scan, scan_at, seen

__all__ = ["flash_event", "plan", "put"]

PUSH, CHOOSE, BUS = 0, 1, 2


@compiled
def plan(d, a, c):
    """Set when channel ``c`` does its next thing, and what."""
    at, what = INF, PUSH
    if d.window:
        at, what = scan_at(d, a, c), SCAN
    if a.channel[c].in_head != a.channel[c].in_tail:
        push = max(a.coming[c, a.channel[c].in_head % d.tags].time, a.channel[c].push_at)
        if push < at:
            at, what = push, PUSH
    choose, command, out = INF, INF, INF
    for k in range(c * d.dies, (c + 1) * d.dies):
        choose = min(choose, max(a.die[k].visible, a.die[k].free_at))
        command = min(command, a.die[k].want_command)
        out = min(out, a.die[k].want_out)
    if choose < INF:
        choose = max(choose, a.channel[c].choose_at)
        if choose < at:
            at, what = choose, CHOOSE
    bus = min(command, max(out, a.channel[c].out_at) if out < INF else INF)
    if bus < INF:
        bus = max(bus, a.channel[c].bus_at)
        if bus < at:
            at, what = bus, BUS
    a.channel[c].next_at, a.channel[c].next_what = at, what


@compiled
def put(d, a, c, tag, at):
    """A read command leaves the translator for channel ``c`` and is at its queue in cycle ``at``."""
    place = a.channel[c].in_tail % d.tags
    a.coming[c, place].tag, a.coming[c, place].time = tag, at
    a.channel[c].in_tail += 1
    plan(d, a, c)


@compiled
def _wants(die, command):
    return die.want_command if command else die.want_out


@compiled
def _after(d, a, c, now, command, last):
    """Round-robin: the first die after ``last`` that wants a command phase, or else a data-out, in cycle ``now``; or -1."""
    for i in range(1, d.dies + 1):
        k = (last + i) % d.dies
        if _wants(a.die[c * d.dies + k], command) <= now:
            return k
    return -1


@compiled
def _push(d, a, c, now):
    place = a.channel[c].in_head % d.tags
    tag = a.coming[c, place].tag
    a.channel[c].in_head += 1
    a.channel[c].push_at = max(a.channel[c].push_at, now + 1)
    k = c * d.dies + (a.tag[tag].page >> d.channel_bits & (d.dies - 1))
    visible = now + (d.k.QUEUE_VISIBLE_ONE if d.dies == 1 and d.window == 0 else d.k.QUEUE_VISIBLE)
    a.tag[tag].next, a.tag[tag].visible = -1, visible
    if a.die[k].head < 0:
        a.die[k].head, a.die[k].visible = tag, visible
    else:
        a.tag[a.die[k].tail].next = tag
    a.die[k].tail = tag
    if d.longest:
        count_push(a, k, now)
    if d.window:
        seen(d, a, k, visible)


@compiled
def _choose(d, a, c, now):
    base, k = c * d.dies, -1
    for i in range(1, d.dies + 1):
        k = base + (a.channel[c].last_choice + i) % d.dies
        if max(a.die[k].visible, a.die[k].free_at) <= now:
            break
    a.channel[c].last_choice = k - base
    one = d.dies == 1 and d.window == 0
    if d.window:
        now = pop(d, a, c, k, now)
    if d.longest:
        count_pop(a, k, now + 1)
    taken = now + (d.k.CHOSEN_ONE if one else d.k.CHOSEN)
    a.channel[c].choose_at = now + (d.k.CHOOSE_EVERY_ONE if one else d.k.CHOOSE_EVERY)
    if not one:
        a.channel[c].push_at = max(a.channel[c].push_at, now + d.k.PUSH_AFTER_POP)
    tag = a.die[k].head
    a.die[k].head = a.tag[tag].next
    a.die[k].visible = INF if a.die[k].head < 0 else a.tag[a.die[k].head].visible
    a.die[k].tag = tag
    a.die[k].free_at = INF
    a.die[k].want_command = max(a.die[k].out_end, taken) + 1
    a.die[k].busy -= a.die[k].want_command


@compiled
def _array(d, a, tag, now):
    """A job is asked for in cycle ``now``; the cycle of its job_done."""
    s = a.s[0]
    taken = now
    if now >= s.reader_asked:
        taken = max(taken, s.reader_free)
        s.reader_asked, s.reader_free = now, taken + d.k.ARRAY_EVERY
    wait = d.k.READ_REQUEST + d.dram_latency + d.k.READ_RESPONSE
    s.dram_bus = read(d, a, taken + d.k.ARRAY_STATE + wait) + 1
    s.dram_bus = read(d, a, taken + d.k.ARRAY_PAGE + wait) + a.table[a.tag[tag].table].beats
    return s.dram_bus - 1 + d.k.ARRAY_DONE


@compiled
def _bus(d, a, c, now):
    base = c * d.dies
    k = _after(d, a, c, now, True, a.channel[c].last_command)
    if k >= 0:
        a.channel[c].last_command = k
        k += base
        tag = a.die[k].tag
        done = now + d.t_command
        a.channel[c].bus_at = done + 1
        a.channel[c].bus_busy += d.t_command
        a.die[k].want_command = INF
        row = a.tag[tag].page >> d.channel_bits + d.die_bits
        array = d.t_read
        a.tag[tag].again = 0
        if d.t_ccs > 0 and a.die[k].held == row:
            array = d.t_ccs
            a.tag[tag].again = 1
        else:
            a.channel[c].reads += 1
        a.die[k].held = row
        loaded = _array(d, a, tag, done + 1)
        a.die[k].want_out = max(done + array + 1, loaded + d.k.ARRAY_LEAVE)
        s, t = a.s[0], a.tag[tag]
        note(s, a.trace, DIE, k, COMMAND, now, done + 1, t.table, t.sample)
        note(s, a.trace, BUS_TRACK, c, COMMAND, now, done + 1, t.table, t.sample)
        note(s, a.trace, DIE, k, ARRAY, done + 1, a.die[k].want_out, t.table, t.sample)
        return
    k = longest(d, a, c, now) if d.longest else _after(d, a, c, now, False, a.channel[c].last_out)
    a.channel[c].last_out = k
    k += base
    tag = a.die[k].tag
    beats = a.table[a.tag[tag].table].beats
    if d.page_unit and not a.tag[tag].again:
        beats = d.page_unit
    moving = -(-beats * d.bus_beat_q16 // 65536)
    end = now + d.k.OUT_OVERHEAD + moving
    a.channel[c].bus_at = end + 1
    a.channel[c].out_at = end + 2  # the bus's output register is free again
    a.channel[c].bus_busy += end - now
    a.die[k].want_out = INF
    a.die[k].free_at = now + 2
    a.die[k].out_end = end
    a.die[k].busy += end + 1
    note(a.s[0], a.trace, DIE, k, OUT, now, end + 1, a.tag[tag].table, a.tag[tag].sample)
    note(a.s[0], a.trace, BUS_TRACK, c, OUT, now, end + 1, a.tag[tag].table, a.tag[tag].sample)
    place = a.channel[c].merge_tail % d.tags
    a.merging[c, place].tag = tag
    a.merging[c, place].time = end + d.k.MERGE_ARRIVE + (1 if beats == 1 and d.merge_buffered else 0)
    a.channel[c].merge_tail += 1


@within
def flash_event(d, a, c):
    """What channel ``c`` does next."""
    now = a.channel[c].next_at
    if a.channel[c].next_what == PUSH:
        _push(d, a, c, now)
    elif a.channel[c].next_what == CHOOSE:
        _choose(d, a, c, now)
    elif a.channel[c].next_what == SCAN:
        scan(d, a, c, now)
    else:
        _bus(d, a, c, now)
    plan(d, a, c)
