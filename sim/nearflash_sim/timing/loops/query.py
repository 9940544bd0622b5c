"""From a submitted command to its lookups: fetch, host reader, parser, scoreboard (``nearflash_hw.host``, ``.lookup``).

Everything here happens in the order of the query stream, so a lookup's cycles follow from those of the lookups before it:
the latest of when it arrives, when the block is free again and when there is room behind it. Where room comes from the flash
(behind the locator, sample slots), the flash goes on until it does.
"""

from __future__ import annotations

import numpy as np

from .block import start_blocks
from .compiled import compiled, entry, within
from .features import KEPT, take
from .fetch import fetch
from .host import sees
from .host_reads import after_entries, keep_read
from .state import COMMANDS, INF, PIECES
from .translator import enqueue, follow
from .waits import COMPLETE, DRAINED, SLICED, TIME, end_blocks, wait
from .way_back import close_sample

__all__ = ["run"]


@compiled
def _word(d, a, at, total):
    """The parser needs the next word from cycle ``at`` on, of a stream of ``total`` words; returns when it takes it."""
    s = a.s[0]
    w, last = s.asked, (1 << d.word_bits) - 1
    lane = w & last
    load = s.word_used
    if lane == 0:
        load = max(load, _beat(d, a, w >> d.word_bits, total + last >> d.word_bits))
    load = max(load, s.word_loaded + 1)
    s.word_loaded = load
    if lane == last or w == total - 1:
        s.beat_used2, s.beat_used1 = s.beat_used1, load
    s.word_used = max(load + 1, at)
    s.asked += 1
    return s.word_used


@compiled
def _words(d, a, at, n, total):
    """The next ``n`` words, as :func:`_word`'s, each wanted in the cycle after the one before it, the first in cycle ``at``;
    returns the cycle after the last. What is left of a beat then comes without a wait."""
    s = a.s[0]
    last = (1 << d.word_bits) - 1
    while n > 0:
        at = _word(d, a, at, total) + 1
        more = min(n - 1, -s.asked & last)
        if more > 0:
            s.asked += more
            at += more
            s.word_used, s.word_loaded = at - 1, at - 2
            if s.asked & last == 0 or s.asked == total:
                s.beat_used2, s.beat_used1 = s.beat_used1, s.word_loaded
        n -= more + 1
    return at


@compiled
def _beat(d, a, beat, beats):
    """When the reader shows beat ``beat`` of a transfer of ``beats``."""
    s = a.s[0]
    if beat == 0:
        for first in range(0, min(beats, d.k.HOST_ROOM), d.k.HOST_PIECE):
            _piece(d, a, first, beats, -1)
    pop = max(a.piece_from[beat >> d.piece_bits & PIECES - 1] + beat + d.k.BEAT_QUEUE, s.beat_taken + 1)
    pop = max(pop, s.beat_used2 + 1)
    s.beat_taken = pop
    behind = beat + 1 + d.k.HOST_ROOM - d.k.HOST_PIECE
    if behind & d.k.HOST_PIECE - 1 == 0 and behind < beats:  # there is room for it
        _piece(d, a, behind, beats, pop)
    return max(pop, s.beat_used1) + 1


@compiled
def _piece(d, a, beat, beats, freed):
    """The piece that begins with ``beat`` is asked for, after its room was ``freed``."""
    s = a.s[0]
    if beat > 0:
        s.piece_at += d.k.REQUEST_EVERY
        if beat & d.page_beats - 1 == 0:  # the next run of host memory
            known = s.walk_run + d.k.WALK_NEXT
            if beats > 2 * d.page_beats:
                known = (s.walk_run + d.k.WALK_FETCH + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE
                         + d.k.WALK_FETCHED)
            s.walk_run = max(s.piece_at - 1, known)
            s.piece_at = s.walk_run + 1
        s.piece_at = max(s.piece_at, freed + 1)
    s.host_bus = max(s.piece_at + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE, s.host_bus)
    if d.block_reads:
        s.host_bus = after_entries(d, a, s.piece_at, s.host_bus)
    a.piece_from[beat >> d.piece_bits & PIECES - 1] = s.host_bus - beat
    s.host_bus += min(d.k.HOST_PIECE, beats - beat)
    if d.block_reads:
        keep_read(a, s.piece_at, s.host_bus)


@compiled
def _begin(d, a, start):
    """A pass begins in cycle ``start``; its transfer is asked for in the next."""
    s = a.s[0]
    s.walk_run = start + 1 + d.k.WALK_FIRST
    s.piece_at = s.walk_run + 1
    s.beat_taken = s.beat_used1 = s.beat_used2 = s.word_used = 0
    s.word_loaded = start
    s.word_used = start + 1
    s.asked = 0


@within
def _check(d, a, m, start, batch, tables, dense, step_words, total, lengths, bag):
    """Pass 1 from ``start`` (the parser takes the command) on; returns the cycle of its result."""
    _begin(d, a, start)
    t = start + 1
    for _ in range(batch):
        t += 1
        t = _words(d, a, t, dense, total)
        for _ in range(tables):
            if d.block_reads:
                wait(d, a, m, np.int64(TIME), t)  # entries that are fetched before come before
            t = _word(d, a, t + 1, total) + 1
            n = lengths[bag]
            bag += 1
            if n == 0:
                t += 1
            t = _words(d, a, t, n * step_words, total)
            if n > 0:
                t += 1
            t += 1
        t += 1
    return t + d.k.PARSE_END


@within
def _room(d, a, m, sample, at):
    """The earliest cycle from ``at`` on in which an item of ``sample`` passes the scoreboard."""
    before = sample - d.slots
    if before >= 0:
        ring = before & 2 * d.slots - 1
        if a.sample[ring].drained < 0:
            wait(d, a, m, np.int64(DRAINED), ring)
        at = max(at, a.sample[ring].drained + 1)
    return at


@within
def _execute(d, a, m, start, number, batch, tables, dense, step_words, total, lengths, bag, at_table, blocks, keys):
    """Pass 2; returns the cycle of its result."""
    s = a.s[0]
    _begin(d, a, start)
    t = start + 1
    gone = s.item_out  # the last item left the parser for the engine's slice
    passed = s.item_in  # and the slice
    for b in range(batch):
        t += 1
        sample = s.sample
        ring = sample & 2 * d.slots - 1
        if a.command[number % COMMANDS].infer:
            _infer_sample(d, a, m, ring, batch - b)
        for _ in range(dense):
            t = _word(d, a, max(t, _dense_room(d, a, m)), total)
            take(d, a, t)
            t += 1
        if d.streams and dense:
            wait(d, a, m, np.int64(SLICED), np.int64(0))  # those that have room, at their time: weights are asked for then
        first = True
        for table in range(tables):
            if d.block_reads:
                wait(d, a, m, np.int64(TIME), t)
            t = _word(d, a, t + 1, total) + 1
            n = lengths[bag]
            bag += 1
            if n == 0:
                t += 1
            for _ in range(n):
                t = _words(d, a, t, step_words - 1, total)
                t = _word(d, a, max(t, gone), total) + 1
                gone = max(t, passed + 1)
                passed = gone + 1
                if first:
                    passed = _room(d, a, m, sample, passed)
                    _open(d, a, sample, number)
                    first = False
                follow(d, a, m)
                passed = max(passed, a.located[s.lookups & d.k.LOCATE_QUEUE - 1] + 1)
                a.sample[ring].left += 1
                a.touched[ring, table] = 1
                enqueue(a, passed, blocks[at_table[table]], keys[at_table[table]], table, sample)
                at_table[table] += 1
            t = max(t, gone + 1) + 1
            gone = max(t, passed + 1)
            passed = gone + 1
            if first:
                passed = _room(d, a, m, sample, passed)
                _open(d, a, sample, number)
                first = False
        t = max(t, gone) + 1
        gone = max(t, passed + 1)
        passed = gone + 1
        a.sample[ring].last = 1 if b == batch - 1 else 0
        s.sample += 1
        if b == batch - 1:
            s.item_out, s.item_in = gone, passed
            a.command[number % COMMANDS].executed = max(t, gone + 1) + d.k.PARSE_END
        close_sample(d, a, sample, passed)
    return max(t, gone + 1) + d.k.PARSE_END


@compiled
def _infer_sample(d, a, m, ring, left):
    """The sample that is parsed is the first of ``left`` of an INFER: what group it is of."""
    s = a.s[0]
    if s.group_left == 0:
        s.group_left = min(left, d.n_batch)
        m.samples[s.groups % len(m.samples)] = s.group_left
    s.group_left -= 1
    place = s.infers & 2 * d.slots - 1
    s.infers += 1
    a.feature_group[place] = a.sample[ring].group = s.groups
    a.feature_ends[place] = a.sample[ring].ends = 1 if s.group_left == 0 else 0
    s.groups += a.sample[ring].ends


@within
def _dense_room(d, a, m):
    """The first cycle in which the slice before the MLP takes the next feature."""
    s = a.s[0]
    if s.sliced < s.features - 1:
        wait(d, a, m, np.int64(SLICED), s.features - 1)
    return a.feature_sliced[(s.features - 2) % KEPT] + 1


@compiled
def _open(d, a, sample, number):
    ring = sample & 2 * d.slots - 1
    a.sample[ring].left = 0
    a.touched[ring, :] = 0
    a.sample[ring].closed = a.sample[ring].drained = -1
    a.sample[ring].retired = 0
    a.sample[ring].command = number


@within
def _send(d, a, m, bell, number, infer, batch, tables, dense, weighted, total, lengths, bag, at_table, blocks, keys):
    """A command whose doorbell comes in cycle ``bell``."""
    s = a.s[0]
    command = number % COMMANDS
    entry = fetch(d, a, max(bell + d.k.BELL_TO_FETCH, s.fetch_free), s.register_free)
    s.fetch_free = entry + d.k.VERDICT + d.k.NEXT_FETCH
    taken = max(entry + d.k.DISPATCHED, s.validator_free)
    s.register_free = taken + 1
    valid = taken + d.k.VALIDATE + d.k.VALIDATE_TABLE * tables
    start = max(max(valid, s.executor_free) + 1, s.parser_free)
    step_words = 2 if weighted else 1
    a.command[command].infer, a.command[command].tables, a.command[command].visible = infer, tables, INF
    width = d.outputs
    if not infer:
        width = 0
        for t in range(tables):
            width += a.table[t].dim
    a.command[command].words = batch * width
    checked = _check(d, a, m, start, batch, tables, dense, step_words, total, lengths, bag)
    a.command[command].pending = checked + 1
    again = checked + 2
    s.executor_free = s.validator_free = again + 2
    ended = _execute(d, a, m, again, number, batch, tables, dense, step_words, total, lengths, bag, at_table, blocks, keys)
    s.parser_free = ended + 1


@within
def _land(d, a, m, submitted, completed, out):
    """The host waits until the oldest command is complete, and takes every one that is."""
    s = a.s[0]
    command = s.landed % COMMANDS
    if a.command[command].visible == INF:
        wait(d, a, m, np.int64(COMPLETE), command)
    seen = sees(d, a, a.command[command].visible)
    s.host_now = seen + d.k.MMIO_WRITE
    s.irq_low = seen + d.k.IRQ_FALL
    while s.landed < s.command and a.command[s.landed % COMMANDS].visible <= seen:
        submitted[out] = a.command[s.landed % COMMANDS].submitted
        completed[out] = s.host_now
        out += 1
        s.landed += 1
    return out


@entry
def run(d, a, m, depth, left, after, following, infer, batch, tables, dense, weighted, words, bags, lengths, at_table,
        blocks, keys, submitted, completed):
    """Commands with at most ``depth`` in flight, none submitted before cycle ``after``; until ``left`` are not complete.
    ``following``: 1 if the host has one more by then. One entry of ``infer`` to ``words`` a command; ``bags``: where its
    bags begin in ``lengths``, sample after sample. ``at_table``: where the next lookup of each table is in ``blocks``:
    logical ones, each of which lies in the page of its number, and in ``keys``: what a cache knows them by; it goes on to
    the table's next ones. Fills ``submitted`` and ``completed`` for commands as they end; returns how many."""
    s = a.s[0]
    out = 0
    s.total, s.depth, s.after = s.command + len(infer) + following, depth, after
    if d.block_reads and s.command == 0:
        start_blocks(d, a, d.k.MMIO_WRITE * min(depth, len(infer)))
    for n in range(len(infer)):
        while s.command - s.landed >= depth:
            out = _land(d, a, m, submitted, completed, out)
        at = max(s.host_now, after)
        a.command[s.command % COMMANDS].submitted = at
        number = s.command
        s.command += 1
        if at == s.host_now:  # else its thread went on to look for completions
            s.host_now += d.k.MMIO_WRITE
        _send(d, a, m, at + d.k.DOORBELL, number, infer[n], batch[n], tables[n], dense[n], weighted[n], words[n],
              lengths, bags[n], at_table, blocks, keys)
    while s.command - s.landed > left:
        out = _land(d, a, m, submitted, completed, out)
    if d.block_reads and left == 0:
        end_blocks(d, a, m)
    return out
