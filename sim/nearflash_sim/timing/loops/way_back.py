"""From the channels back to the host as events: merge, pooling, drain, results (``nearflash_hw.lookup``, ``.host.queues``).

The merge is the one place where vectors of several channels meet; behind it everything happens in its order, so the rest is
arithmetic on cycles.
"""

from __future__ import annotations

from .compiled import compiled
from .flash import flash_event
from .mlp import free_from, infer
from .state import COMMANDS, INF

__all__ = ["close_sample", "step"]


@compiled
def step(d, a, m):
    """Do the next thing that happens in the flash or behind it; returns its cycle, INF if nothing is left to happen."""
    at, channel, merge = INF, -1, INF
    for c in range(d.channels):
        if a.channel[c].next_at < at:
            at, channel = a.channel[c].next_at, c
        if a.channel[c].merge_head != a.channel[c].merge_tail:
            merge = min(merge, a.merging[c, a.channel[c].merge_head % d.tags].time)
    if merge < INF:
        merge = max(merge, a.s[0].merge_free)
        if merge < at:
            _merge(d, a, m, merge)
            return merge
    if channel >= 0:
        flash_event(d, a, channel)
    return at


@compiled
def _merge(d, a, m, now):
    """A vector is chosen and goes through pooling."""
    s = a.s[0]
    c = 0
    for i in range(1, d.channels + 1):
        c = (s.merge_last + i) % d.channels
        if a.channel[c].merge_head != a.channel[c].merge_tail and a.merging[c, a.channel[c].merge_head % d.tags].time <= now:
            break
    tag = a.merging[c, a.channel[c].merge_head % d.tags].tag
    a.channel[c].merge_head += 1
    s.merge_last = c
    table = a.tag[tag].table
    beats, words = a.table[table].beats, a.table[table].words
    s.merge_free = now + beats
    first = now + d.k.MERGE_OUT
    last = first + beats - 1
    place = s.tag_tail % d.tags
    a.free[place].tag, a.free[place].time = tag, last + d.k.TAG_BACK
    s.tag_tail += 1

    # pooling: rows one after the other, a word a cycle
    sample = a.tag[tag].sample
    start = max(last + d.k.ROW_INT8 + 1 if a.table[table].int8 else first + d.row_latency, s.issue_done)
    key = sample * 256 + table
    if key == s.issue_key and words < d.k.HAZARD:
        start = max(start, s.issue_first + d.k.HAZARD)
    s.issue_key, s.issue_first = key, start
    s.issue_done = start + words
    ring = sample % (2 * d.slots)
    a.sample[ring].retired = s.issue_done + d.k.RETIRE
    a.sample[ring].left -= 1
    if a.sample[ring].left == 0 and a.sample[ring].closed >= 0:
        _drain(d, a, m)


@compiled
def close_sample(d, a, m, sample, at):
    """The sample's last item passes the scoreboard."""
    ring = sample % (2 * d.slots)
    a.sample[ring].closed = at
    if a.sample[ring].left == 0:
        _drain(d, a, m)


@compiled
def _drain(d, a, m):
    """Drain every sample, oldest first, whose rows are all in."""
    s = a.s[0]
    while s.next_drain < s.sample:
        sample = s.next_drain
        ring = sample % (2 * d.slots)
        if a.sample[ring].closed < 0 or a.sample[ring].left != 0:
            return
        s.next_drain += 1
        begin = max(max(a.sample[ring].closed, a.sample[ring].retired) + d.k.FINISHED, s.drain_ready)
        s.drain_ready = begin + 1
        begin = max(begin, s.walker_free)
        last = _emit(d, a, m, ring, begin)
        a.sample[ring].drained = last
        number = a.sample[ring].command
        command = number % COMMANDS
        if a.command[command].infer:
            a.command[command].logit = infer(m, a.sample[ring].dense, a.pooled)
        if a.sample[ring].last:
            _complete(d, a, number, begin, last)


@compiled
def _emit(d, a, m, ring, begin):
    """The accumulators of a slot become pooled elements from cycle ``begin`` on; returns when the last one leaves."""
    s, k = a.s[0], d.k
    command = a.sample[ring].command % COMMANDS
    is_infer = a.command[command].infer
    open_from = max(s.results_free, a.command[command].pending + 1)  # of a LOOKUP's results
    put = begin + 1
    out, entered, number = 0, 0, 0
    for t in range(a.command[command].tables):
        put += k.DRAIN_WALK_TABLE
        touched = a.touched[ring, t] != 0
        interval = d.mean_cycles if touched and a.table[t].mean else 1
        free = free_from(m, a.table[t].node) if is_infer else 0
        dim = a.table[t].dim
        lanes = d.beat_bytes // 4
        for first in range(0, dim, lanes):
            job = s.drain_jobs % k.DRAIN_JOBS
            put = max(put, a.job_left[job] + 1)
            a.job_left[job] = max(put + 1, s.element_last)
            s.drain_jobs += 1
            element = put + (k.DRAIN_READ if touched else k.DRAIN_ZERO)
            put += 1
            for _ in range(first, min(dim, first + lanes)):
                element = max(element, s.element_free)
                out = max(element + k.DRAIN_OUT + interval - 1, s.out_last + 1)
                if is_infer:
                    if number >= m.s[0].pooled:
                        out = max(out, a.pooled[number - m.s[0].pooled])
                    entered = max(max(out + m.s[0].pooled, entered + 1), free)
                    a.pooled[number] = entered
                else:
                    out = max(out, max(s.writer_last, open_from) + 1)
                    _write_word(d, a, out)
                s.out_last = out
                s.element_last = max(element, out - k.DRAIN_OUT - interval + 1)
                s.element_free = s.element_last + interval
                number += 1
    s.walker_free = put
    return out


@compiled
def _write_word(d, a, at):
    """A word of the oldest command's results is taken in cycle ``at``; whole chunks are written as they come."""
    s = a.s[0]
    s.writer_last = at
    s.writer_words += 1
    if s.writer_words == d.k.WRITE_CHUNK * d.beat_bytes // 4:
        _write_chunk(d, a)


@compiled
def _write_chunk(d, a):
    """Write what waits."""
    s = a.s[0]
    beats = -(-s.writer_words * 4 // d.beat_bytes)
    s.writer_bus = max(s.writer_last + d.k.CHUNK_FIRST, s.writer_bus) + beats
    s.writer_words = 0


@compiled
def _complete(d, a, number, verdict, last):
    """All samples of a command are through: its results are written, and its completion."""
    s = a.s[0]
    command = number % COMMANDS
    judged = max(last, max(a.command[command].executed, verdict)) + 1
    if a.command[command].infer:
        begin = max(s.results_free, a.command[command].pending + 1) + 1
        stored = max(max(a.command[command].logit + d.k.LOGIT_STORED, judged), begin)
        for word in range(a.command[command].words):
            _write_word(d, a, stored + d.k.LOGIT_READ + word)
    if s.writer_words:
        _write_chunk(d, a)
    done = max(judged + 1, s.writer_bus + d.k.WRITTEN) + 1
    s.results_free = done + 1
    a.command[command].visible = done + d.k.COMPLETION_SLICE + d.k.CQE_VISIBLE
