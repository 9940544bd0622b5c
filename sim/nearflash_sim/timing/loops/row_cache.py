"""The row cache in the controller's DRAM: a model of what the gateware does not have yet.

Its tags are on chip, in sets of ``CACHE_WAYS`` lines. A line that is asked for counts in a sketch of how often (a count-min
sketch of four rows, whose counters stop at 15 and are halved after so many requests); what flash gave takes the place of its
set's least recently used line if it was asked for more often than that one (TinyLFU: Einziger, Friedman and Manes, ACM
Transactions on Storage 13(4), 2017).
"""

from __future__ import annotations

import numpy as np
from nearflash.contract.modelled import CACHE_WAYS

from .compiled import apart, compiled

__all__ = ["SKETCHES", "asked", "keep", "new_cache"]

SKETCHES = 4  # rows of the sketch
FULL = 15  # of a counter of four bits
COUNTERS = 4  # of a row of the sketch, for each line of the cache
AGE = 10  # requests for each line of the cache, after which the counters are halved
# Odd numbers by which a key is multiplied; the upper bits of the product choose the counter.
HASH = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D)


def new_cache(sets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys int64 [sets, ways], -1 where a line is empty; when each was last used; counters uint8 [rows,
    counters])."""
    sets = max(1, sets)
    return (np.full((sets, CACHE_WAYS), -1), np.zeros((sets, CACHE_WAYS), np.int64),
            np.zeros((SKETCHES, COUNTERS * sets * CACHE_WAYS), np.uint8))


@compiled
def _counter(a, key, row):
    return (key + 1) * HASH[row] >> 24 & a.sketch.shape[1] - 1


@compiled
def _often(a, key):
    n = FULL
    for row in range(SKETCHES):
        n = min(n, a.sketch[row, _counter(a, key, row)])
    return n


@compiled
def _set_of(a, key):
    return (key + 1) * HASH[0] >> 40 & a.cached.shape[0] - 1


@apart
def asked(a, key):
    """``key`` is asked for; whether it's there."""
    s = a.s[0]
    s.cache_asked += 1
    for row in range(SKETCHES):
        place = _counter(a, key, row)
        a.sketch[row, place] = min(FULL, a.sketch[row, place] + 1)
    if s.cache_asked % (AGE * a.cached.size) == 0:
        for row in range(SKETCHES):
            for place in range(a.sketch.shape[1]):
                a.sketch[row, place] >>= 1
    line = _set_of(a, key)
    for way in range(CACHE_WAYS):
        if a.cached[line, way] == key:
            a.cache_used[line, way] = s.cache_asked
            s.cache_hits += 1
            return True
    return False


@apart
def keep(a, key):
    """Flash gave ``key``: it is kept, unless what would give way is asked for as often."""
    line = _set_of(a, key)
    oldest = 0
    for way in range(CACHE_WAYS):
        if a.cached[line, way] == key:
            return
        if a.cache_used[line, way] < a.cache_used[line, oldest]:
            oldest = way
    held = a.cached[line, oldest]
    if held < 0 or _often(a, key) > _often(a, held):
        a.cached[line, oldest], a.cache_used[line, oldest] = key, a.s[0].cache_asked
