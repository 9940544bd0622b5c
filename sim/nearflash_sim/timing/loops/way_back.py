"""From the channels back to the host as events: merge, pooling, drain, results (``nearflash_hw.lookup``, ``.host.queues``).

The merge is the one place where vectors of several channels meet; rows pass pooling in its order. A drain's walk over the
accumulators is the other thing that happens by itself: it and the rows take turns at their memories. What leaves a drain
goes to the MLP or to host memory in order, so that is arithmetic on cycles.
"""

from __future__ import annotations

from .arrivals import leave
from .block import block_event
from .compiled import apart, compiled, within
from .features import resolve
from .flash import flash_event
from .host_writes import complete, results_event, write_word
from .mlp import TABLES, advance, advance_bursts, arrive, note_start, room_known, room_of
from .pipe import CONVERT, QUANTIZE, entered, passed, stalled
from .row_cache import passes
from .state import COMMANDS, INF, ROWS
from .trace import DRAIN, OTHER, POOLING, note

__all__ = ["close_sample", "flash_at", "next_at", "settle", "step"]


@within
def step(d, a, m):
    """Do the next thing that happens in the flash or behind it; returns its cycle, INF if nothing is left to happen."""
    at, channel, merge = INF, -1, INF
    for c in range(d.sources):
        if a.channel[c].next_at < at:
            at, channel = a.channel[c].next_at, c
        merge = min(merge, a.channel[c].merge_at)
    walk, merge = a.s[0].walk_at, max(merge, a.s[0].merge_free)
    soonest = min(min(at, walk), merge)
    if d.block_reads:
        if a.s[0].result_at < min(soonest, a.block[0].next_at):
            at = a.s[0].result_at
            results_event(d, a)
            settle(d, a, m)
            return at
        soonest = min(soonest, a.block[0].next_at)
    if d.streams and a.dram[0].next_at < soonest:
        at = a.dram[0].next_at
        _burst(d, a, m)
        return at
    if d.block_reads and a.block[0].next_at < min(min(at, walk), merge):
        at = a.block[0].next_at
        block_event(d, a)
        return at
    if merge < at and merge <= walk:
        _merge(d, a, m, merge)
        return merge
    if walk < at:
        _put(d, a, m, walk)
        return walk
    if channel >= 0:
        flash_event(d, a, channel)
    return at


@compiled
def next_at(d, a):
    """The cycle of what :func:`step` would do."""
    at, merge = a.s[0].walk_at, INF
    for c in range(d.sources):
        at = min(at, a.channel[c].next_at)
        merge = min(merge, a.channel[c].merge_at)
    if d.block_reads:
        at = min(at, min(a.block[0].next_at, a.s[0].result_at))
    if d.streams:
        at = min(at, a.dram[0].next_at)
    return min(at, max(merge, a.s[0].merge_free))


@compiled
def flash_at(d, a):
    """The cycle of the next thing in any channel, or of the next burst of streamed weights."""
    at = a.dram[0].next_at if d.streams else INF
    for c in range(d.channels):
        at = min(at, a.channel[c].next_at)
    return at


@within
def _merge(d, a, m, now):
    """A vector is chosen and goes through pooling."""
    s = a.s[0]
    c = s.merge_last
    for _ in range(d.sources):
        c = c + 1 if c + 1 < d.sources else 0
        if a.channel[c].merge_at <= now:
            break
    tag = leave(d, a, c)
    s.merge_last = c
    table, sample = a.tag[tag].table, a.tag[tag].sample
    beats, words, int8 = a.table[table].beats, a.table[table].words, a.table[table].int8

    # The beats pass a slice of two places and a register on their way to the row buffer, which takes no beat while it works
    # on an INT8 row's last one, or while ROWS rows wait in it.
    place = s.rows & ROWS - 1
    s.rows += 1
    first = now + d.k.MERGE_OUT
    if s.vector_done <= first and s.vector_taken <= first - 1 and a.loaded[place] <= first:
        s.merge_free = now + beats
        s.vector_before = first + beats - 3 if beats > 1 else s.vector_sliced
        s.vector_sliced, s.vector_taken = first + beats - 2, first + beats - 1
        s.vector_done = s.vector_taken + 1
    else:
        chosen = now - 1
        for i in range(beats):
            chosen = max(chosen, s.vector_before) + 1
            sliced = max(max(chosen, s.vector_sliced) + 1, s.vector_taken)
            s.vector_before, s.vector_sliced = s.vector_sliced, sliced
            s.vector_taken = max(sliced + 1, s.vector_done)
            s.vector_done = s.vector_taken + 1
            if i == 0:
                s.vector_done = max(s.vector_done, a.loaded[place] + 1)
                first = s.vector_done - 1
        s.merge_free = chosen + 1
    last, gone = s.vector_taken, s.vector_done - 1
    if c < d.channels and a.tag[tag].keep:
        passes(d, a, a.tag[tag].key & d.cache_mask, d.page_unit if d.page_unit else beats, last - beats + 1, last)
    if int8:
        s.vector_done += d.k.ROW_INT8_LAST
    free = s.tag_tail & d.tags - 1
    a.free[free].tag, a.free[free].time = tag, last + d.k.TAG_BACK
    s.tag_tail += 1

    load = max(gone + d.k.ROW_INT8 if int8 else first + d.row_latency, s.issue_done)
    a.loaded[place] = load
    done = _add(d, a, m, load, int8, words, sample * 256 + table)
    note(s, a.trace, POOLING, 0, OTHER, load + 1, done + 1, table, sample)
    ring = sample & 2 * d.slots - 1
    a.sample[ring].retired = done + d.k.RETIRE
    a.sample[ring].left -= 1
    if a.sample[ring].left == 0:
        _begin_drain(d, a)


@within
def _add(d, a, m, load, bias, words, key):
    """A row's words go to the accumulators, one a cycle from the one after ``load`` on, an INT8 row's bias before them. A
    drain's reads take a row's cycles, but no two in a row. Returns the cycle of the last word."""
    s = a.s[0]
    first = load + 1 + bias
    if words < d.k.HAZARD:
        for i in range(d.k.HAZARD - 1):
            if a.recent[i, 0] == key:
                first = max(first, a.recent[i, 1] + d.k.HAZARD)
    done = first + words - 1
    if s.walk_at <= done:
        while s.walk_at <= load:
            _put(d, a, m, s.walk_at)
        t = load
        for i in range(bias + words):
            t = max(t + 1, first) if i == bias else t + 1
            while s.walk_at <= t:
                at = s.walk_at
                if s.walk_zero == 0 and s.walk_granted == at - 1:
                    at += 1
                if at > t:
                    s.walk_at = at
                else:
                    if s.walk_zero == 0 and at == t:
                        t += 1
                    _put(d, a, m, at)
        first, done = t - words + 1, t
        if s.walk_at <= done:
            s.walk_at = done + 1
    if words < d.k.HAZARD:
        for i in range(d.k.HAZARD - 2):
            a.recent[i, 0], a.recent[i, 1] = a.recent[i + 1, 0], a.recent[i + 1, 1]
        a.recent[d.k.HAZARD - 2, 0], a.recent[d.k.HAZARD - 2, 1] = key, first
    s.issue_done = done
    return done


@compiled
def close_sample(d, a, sample, at):
    """The sample's last item passes the scoreboard."""
    ring = sample & 2 * d.slots - 1
    a.sample[ring].closed = at
    if a.sample[ring].left == 0:
        _begin_drain(d, a)


@compiled
def _begin_drain(d, a):
    """The drain goes to the oldest sample, if it is idle and that sample's rows are all in."""
    s = a.s[0]
    if s.walk_at < INF or s.walk_waits or s.next_drain == s.sample:
        return
    ring = s.next_drain & 2 * d.slots - 1
    if a.sample[ring].closed < 0 or a.sample[ring].left != 0:
        return
    begin = max(max(a.sample[ring].closed + d.k.CLOSED, a.sample[ring].retired + d.k.FINISHED), s.drain_ready)
    s.drain_ready = begin + 1
    s.walk_begin = begin
    s.next_drain += 1
    s.walk_table, s.walk_number, s.walk_at = -1, 0, begin + 1
    _next_table(d, a, ring)
    _next_word(d, a)


@compiled
def _next_table(d, a, ring):
    s = a.s[0]
    s.walk_table += 1
    s.walk_at += d.k.DRAIN_WALK_TABLE
    s.walk_word = 0
    s.walk_zero = 1 - a.touched[ring, s.walk_table]


@compiled
def _next_word(d, a):
    """The cycle in which the drain may ask for its next word: there is a place for the job."""
    s = a.s[0]
    s.walk_at = max(s.walk_at, a.job_left[s.drain_jobs & d.k.DRAIN_JOBS - 1] + 1)


@within
def _infer(d, a, m, command):
    """All of a group is there; when its last logit is, is known."""
    at = 0
    for node in range(len(m.node)):
        if m.node[node].kind == TABLES:
            arrive(m, node, a.pooled, at)
            at += m.node[node].width
    if d.features:
        resolve(d, a, m)
    a.command[command].logit = advance(m)


@apart
def _burst(d, a, m):
    """The next burst of streamed weights, and what follows from it: features and a drain may have waited for room."""
    advance_bursts(m)
    if d.features:
        resolve(d, a, m)
    settle(d, a, m)


@compiled
def settle(d, a, m):
    """Complete commands whose samples are drained, in order, if their last groups are through; a drain that waits for that,
    or for room in the MLP's buffers, goes on."""
    s = a.s[0]
    while s.judged < s.ended and s.written == s.judged:
        command = s.judged % COMMANDS
        if a.command[command].infer and d.streams:
            group = a.command[command].group
            if m.node[len(m.node) - 1].groups <= group:
                break
            a.command[command].logit = m.through[group % len(m.through)]
        _complete(d, a, s.judged, a.command[command].verdict, a.command[command].last)
        s.judged += 1
    if s.walk_waits and not _walk_waits(d, a, m):
        s.walk_at, s.walk_waits = s.walk_waits, 0


@compiled
def _walk_waits(d, a, m):
    """Whether it isn't known when the drain's next elements have room: bursts of weights or pages to the host come first."""
    s = a.s[0]
    ring = s.next_drain - 1 & 2 * d.slots - 1
    number = a.sample[ring].command
    if a.command[number % COMMANDS].infer:
        return d.streams and not room_known(m, a.table[s.walk_table].node, a.sample[ring].group)
    return s.written < number  # results of a LOOKUP are written in order


@apart
def _put(d, a, m, at):
    """In cycle ``at`` the drain asks for a word of accumulators and gets it, or knows that it is zero. Its elements pass the
    divider, the conversion, and go where they are wanted."""
    s, k = a.s[0], d.k
    if (d.streams or d.block_reads) and _walk_waits(d, a, m):
        s.walk_at, s.walk_waits = INF, at
        return
    sample = s.next_drain - 1
    ring = sample & 2 * d.slots - 1
    number = a.sample[ring].command
    command = number % COMMANDS
    is_infer = a.command[command].infer
    table = s.walk_table
    s.walk_granted = s.walk_granted if s.walk_zero else at
    job = s.drain_jobs & k.DRAIN_JOBS - 1
    s.drain_jobs += 1
    left = max(at + 1, s.element_taken)
    a.job_left[job] = left
    valid = max(at + (k.DRAIN_ZERO if s.walk_zero else k.DRAIN_READ), left + 1)
    interval = d.mean_cycles if a.table[table].mean and not s.walk_zero else 1
    free = 0
    if is_infer:
        free = room_of(m, a.table[table].node, a.sample[ring].group)
    else:
        free = max(s.results_free, a.command[command].pending + 1) + 1  # results of a LOOKUP are written in order
    lanes, dim = d.lanes, a.table[table].dim
    elements = min(lanes, dim - s.walk_word * lanes)
    out = 0
    for _ in range(elements):
        taken = max(valid, s.element_taken + 1)
        if d.divides:
            taken = max(taken, s.element_passed)
            begun = max(taken + 1, s.divided + 1)
            s.element_passed = begun if interval > 1 else max(begun, s.convert_in)
            s.divided = max(s.element_passed + interval - 1, s.convert_in)
            s.element_taken = taken
            s.convert_in = entered(a, CONVERT, s.divided + 1)
        else:
            taken = max(taken, s.convert_in)
            s.element_taken = taken
            s.convert_in = entered(a, CONVERT, taken + 1)
        here = passed(a, CONVERT, s.convert_in, k.CONVERT)
        converted = max(here, s.pooled_before + 1)
        stalled(a, CONVERT, here, converted)
        out = max(converted, s.pooled_out) + 1
        if is_infer:
            out = max(out, s.quantize_in)
            s.quantize_in = entered(a, QUANTIZE, out + 1)
            here = passed(a, QUANTIZE, s.quantize_in, k.QUANTIZE)
            buffered = max(here, free)
            stalled(a, QUANTIZE, here, buffered)
            note_start(m, a.table[table].node, a.sample[ring].group, buffered)
            a.pooled[s.walk_number] = buffered
        else:
            out = max(out, max(s.writer_last + 1, free))
            write_word(d, a, out)
        s.pooled_before, s.pooled_out = s.pooled_out, out
        s.walk_number += 1
        valid = 0
        s.drained = converted + 1
    s.walk_word += 1
    s.walk_at = at + 1
    if s.walk_word < a.table[table].words:
        _next_word(d, a)
    elif table + 1 < a.command[command].tables:
        _next_table(d, a, ring)
        _next_word(d, a)
    else:
        s.drain_ready = max(s.drain_ready, at + 1)
        note(s, a.trace, DRAIN, 0, OTHER, s.walk_begin, at + 1, -1, sample)
        a.sample[ring].drained = s.drained
        s.walk_at = INF
        if is_infer and a.sample[ring].ends:
            _infer(d, a, m, command)
        if a.sample[ring].last:
            a.command[command].group = a.sample[ring].group
            a.command[command].verdict, a.command[command].last = s.walk_begin, out
            s.ended = number + 1
        settle(d, a, m)
        _begin_drain(d, a)


@compiled
def _complete(d, a, number, verdict, last):
    """All samples of a command are through: its results are written, and its completion."""
    command = a.command[number % COMMANDS]
    judged = max(last, max(command.executed, verdict)) + 1
    logits = 0
    if command.infer:
        begin = max(a.s[0].results_free, command.pending + 1) + 1
        logits = max(max(command.logit + d.k.LOGIT_STORED, judged), begin) + d.k.LOGIT_READ
    complete(d, a, number, judged, logits)
