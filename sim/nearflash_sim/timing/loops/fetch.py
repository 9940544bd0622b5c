"""Entries of submission queues, fetched one at a time (``nearflash_hw.host.queues``): commands and block I/O share that.

What either fetches isn't found in order of time.
"""

from __future__ import annotations

from .compiled import compiled
from .intervals import gap

__all__ = ["FETCHES", "fetch"]

FETCHES = 16  # the latest ones


@compiled
def _gap(d, a, at, cycles):
    """The first cycle from ``at`` on in which nothing else is fetched for so many ``cycles``."""
    if d.block_reads:
        at = gap(a.fetched, at, cycles)
        place = a.s[0].fetches % FETCHES
        a.s[0].fetches += 1
        a.fetched[place, 0], a.fetched[place, 1] = at, at + cycles
    return at


@compiled
def fetch(d, a, at, register_free):
    """An entry that may be fetched from cycle ``at`` on, for a command register that is empty from ``register_free`` on:
    when the fetch that takes it ends. One that finds the register full stays in its queue and is fetched again."""
    reading = d.k.FETCH_REQUEST + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE + 64 // d.beat_bytes
    cycles = reading + d.k.VERDICT + d.k.NEXT_FETCH
    entry = _gap(d, a, at, cycles) + reading
    if entry + d.k.VERDICT < register_free:
        again = max(register_free + d.k.REGISTER_SEEN, entry + d.k.VERDICT + d.k.DEFERRED)
        entry = _gap(d, a, again, cycles) + reading
    return entry
