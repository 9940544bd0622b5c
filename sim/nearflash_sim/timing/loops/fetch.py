"""Entries of submission queues, fetched one at a time (``nearflash_hw.host.queues``): commands and block I/O share that.

What either fetches isn't found in order of time.
"""

from __future__ import annotations

from .compiled import compiled
from .host_reads import after_blocks
from .intervals import gap

__all__ = ["FETCHES", "entry", "fetch"]

FETCHES = 16  # the latest ones


@compiled
def entry(d, a, at):
    """An entry is fetched from cycle ``at`` on, or as soon as nothing else is: when it's complete."""
    beats = 64 // d.beat_bytes
    reading = d.k.FETCH_REQUEST + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE + beats
    if d.block_reads:
        at = gap(a.fetched, at, reading + d.k.VERDICT + d.k.NEXT_FETCH)
        complete = at + reading
        if d.block_writes:
            complete = after_blocks(a, at + d.k.FETCH_REQUEST, complete - beats) + beats
        place = a.s[0].fetches % FETCHES
        a.s[0].fetches += 1
        a.fetched[place, 0], a.fetched[place, 1] = at, complete + d.k.VERDICT + d.k.NEXT_FETCH
        return complete
    return at + reading


@compiled
def fetch(d, a, at, register_free):
    """An entry that may be fetched from cycle ``at`` on, for a command register that is empty from ``register_free`` on:
    when the fetch that takes it ends. One that finds the register full stays in its queue and is fetched again."""
    complete = entry(d, a, at)
    if complete + d.k.VERDICT < register_free:
        complete = entry(d, a, max(register_free + d.k.REGISTER_SEEN, complete + d.k.VERDICT + d.k.DEFERRED))
    return complete
