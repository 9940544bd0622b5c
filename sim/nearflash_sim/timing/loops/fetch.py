"""Entries of submission queues, fetched one at a time (``nearflash_hw.host.queues``): commands and block I/O share that.

What either fetches isn't found in order of time.
"""

from __future__ import annotations

from .compiled import compiled
from .host_reads import after_blocks
from .intervals import gap

__all__ = ["FETCHES", "fetch"]

FETCHES = 16  # the latest ones


@compiled
def _entry(d, a, at):
    """An entry is fetched from cycle ``at`` on, or as soon as nothing else is: when it's complete."""
    reading = d.k.FETCH_REQUEST + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE + 64 // d.beat_bytes
    if d.block_reads:
        at = gap(a.fetched, at, reading + d.k.VERDICT + d.k.NEXT_FETCH)
        entry = at + reading
        if d.block_writes:
            entry = after_blocks(a, at + d.k.FETCH_REQUEST, entry - 64 // d.beat_bytes) + 64 // d.beat_bytes
        place = a.s[0].fetches % FETCHES
        a.s[0].fetches += 1
        a.fetched[place, 0], a.fetched[place, 1] = at, entry + d.k.VERDICT + d.k.NEXT_FETCH
        return entry
    return at + reading


@compiled
def fetch(d, a, at, register_free):
    """An entry that may be fetched from cycle ``at`` on, for a command register that is empty from ``register_free`` on:
    when the fetch that takes it ends. One that finds the register full stays in its queue and is fetched again."""
    entry = _entry(d, a, at)
    if entry + d.k.VERDICT < register_free:
        entry = _entry(d, a, max(register_free + d.k.REGISTER_SEEN, entry + d.k.VERDICT + d.k.DEFERRED))
    return entry
