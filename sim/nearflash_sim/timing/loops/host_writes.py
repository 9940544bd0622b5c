"""What goes to host memory: results and completions (``nearflash_hw.lookup.results``, ``.beat_writer``, ``.host.queues``).

Without block I/O that is arithmetic, a chunk of results after the other. Beside it the bus takes pages, chunks and
completions in the order in which they have their first beats to offer, so a command's wait for their turn as events.
"""

from __future__ import annotations

from .block_host import plan_block
from .compiled import compiled
from .state import COMMANDS, INF

__all__ = ["complete", "post", "results_event", "write_word"]


@compiled
def write_word(d, a, at):
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
    s.writer_words = 0
    if d.block_reads:
        _queue(d, a, s.writer_last + d.k.CHUNK_FIRST - d.k.BUS_FIRST, beats, 0)
    else:
        s.writer_bus = max(s.writer_last + d.k.CHUNK_FIRST, s.writer_bus) + beats


@compiled
def complete(d, a, number, judged, logits):
    """All samples of a command are through, which is known in cycle ``judged``: its ``logits``, if it has any, are written
    from that cycle on, and its completion."""
    s = a.s[0]
    for word in range(a.command[number % COMMANDS].words if logits else 0):
        write_word(d, a, logits + word)
    if s.writer_words:
        _write_chunk(d, a)
    if d.block_reads:
        _queue(d, a, judged, 0, number)
    else:
        a.command[number % COMMANDS].visible = _done(d, a, judged) + d.k.CQE_VISIBLE + d.cqe_beats


@compiled
def _done(d, a, judged):
    """The oldest command's results are written; the cycle in which Queues may take its completion."""
    s = a.s[0]
    done = max(judged + 1, s.writer_bus + d.k.WRITTEN) + 1
    s.results_free = done + 1
    s.written += 1
    return done + d.k.COMPLETION_SLICE


@compiled
def _queue(d, a, at, beats, number):
    s = a.s[0]
    place = s.results_queued % len(a.result)
    a.result[place].at, a.result[place].beats, a.result[place].command = at, beats, number
    s.results_queued += 1
    if s.results_queued == s.results_sent + 1:
        _next_result(d, a)


@compiled
def _next_result(d, a):
    """Set when the oldest chunk has its place on the bus but for :func:`post`'s time, or Queues may take a completion."""
    s = a.s[0]
    s.result_at = INF
    if s.results_sent < s.results_queued:
        result = a.result[s.results_sent % len(a.result)]
        s.result_at = result.at - d.k.CQE_ASK
        if result.beats == 0:
            s.result_at = max(_done(d, a, result.at), a.block[0].post_free)


@compiled
def results_event(d, a):
    """The oldest chunk goes to the bus, or the completion of the oldest command."""
    s, b = a.s[0], a.block[0]
    result = a.result[s.results_sent % len(a.result)]
    if result.beats > 0:
        at = max(result.at, b.bus_free)
        b.bus_free = at + result.beats
        s.writer_bus = b.bus_free + d.k.BUS_FIRST
    else:
        if b.post_free > s.result_at:  # Queues took one of block I/O meanwhile
            s.result_at = b.post_free
            return
        a.command[result.command % COMMANDS].visible = post(d, a, s.result_at)
        plan_block(a)
    s.results_sent += 1
    _next_result(d, a)


@compiled
def post(d, a, now):
    """Queues takes a completion in cycle ``now``, beside block I/O; the cycle in which its entry is in host memory."""
    b = a.block[0]
    at = max(now + d.k.CQE_ASK, b.bus_free)
    b.bus_free = at + d.cqe_beats
    b.post_free = b.bus_free + d.k.CQE_EVERY - d.k.CQE_ASK
    return b.bus_free + d.k.CQE_VISIBLE - d.k.CQE_ASK
