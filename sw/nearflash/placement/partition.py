"""Rows that are wanted together, page by page: recursive bisection of a hypergraph.

Social Hash Partitioner (Kabiljo et al., VLDB 2017), as Bandana (Eisenman et al., MLSys 2019) uses it for embeddings on
flash: the rows of a part go to two halves so that each set of rows that was wanted together meets as few parts as possible.
The cost of a set with n rows in a part is 1 - 2**-n (a smooth "it meets that part"); rows of both halves change places
while that lowers the sum over all sets.
"""

from __future__ import annotations

import numpy as np

__all__ = ["partition"]

ROUNDS = 12  # of exchanges in a level, at most
FEWEST = 1 / 500  # of the rows: a round that moves less ends the level
LEAST_GAIN = 1e-5


def partition(sets: np.ndarray, rows: np.ndarray, count: int, page_rows: int, seed: int = 0) -> np.ndarray:
    """An order (int64 [count]) of rows 0 to ``count`` - 1 whose consecutive ``page_rows`` were wanted together.

    ``sets`` and ``rows`` (int64 [n], pairs): row ``rows[i]`` was wanted in set ``sets[i]``. Deterministic for a seed.
    """
    pairs = np.unique(np.stack([sets, rows], 1), axis=0) if len(sets) else np.zeros((0, 2), np.int64)
    rng = np.random.default_rng(seed)
    place = rng.permutation(count)
    span = page_rows
    while span < count:
        span *= 2
    while span > page_rows:
        _level(pairs[:, 0], pairs[:, 1], place, span, rng)
        span //= 2
    return np.argsort(place)


def _level(sets: np.ndarray, rows: np.ndarray, place: np.ndarray, span: int, rng: np.random.Generator) -> None:
    """Halve every part of ``span`` places: exchange ``place`` of rows in the halves of a part, in place."""
    part, count = place // span, len(place)
    parts = int(part.max(initial=0)) + 1
    met, pair = np.unique(sets * parts + part[rows], return_inverse=True)  # (set, part)
    for turn in range(ROUNDS):
        upper = place % span >= span // 2
        mine = upper[rows]
        above = np.bincount(pair, mine, len(met))
        below = np.bincount(pair, minlength=len(met)) - above
        here, there = np.where(mine, above[pair], below[pair]), np.where(mine, below[pair], above[pair])
        gain = np.bincount(rows, 0.5**here - 0.5 ** (there + 1), count) + rng.random(count) * 1e-7
        moved = sum(_exchange(order_below, order_above, gain, place, turn)
                    for order_below, order_above in _halves(part, upper, gain, parts))
        if moved < max(2, count * FEWEST):
            return


def _halves(part: np.ndarray, upper: np.ndarray, gain: np.ndarray, parts: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every part, the rows of its lower and of its upper half, those that gain most from leaving it first."""
    order = np.lexsort((-gain, upper, part))
    ends = np.searchsorted(part[order] * 2 + upper[order], np.arange(2 * parts + 1))
    return [(order[ends[k] : ends[k + 1]], order[ends[k + 1] : ends[k + 2]]) for k in range(0, 2 * parts, 2)]


def _exchange(below: np.ndarray, above: np.ndarray, gain: np.ndarray, place: np.ndarray, turn: int) -> int:
    """Exchange as many rows of the two halves as gain from it together; returns how many pairs. From the second turn on
    only some, as each gain supposes that the others stay."""
    pairs = min(len(below), len(above))
    good = gain[below[:pairs]] + gain[above[:pairs]] > LEAST_GAIN
    n = pairs if good.all() else int(np.argmin(good))
    n = n if not turn else -(-n * 3 // 4)
    a, b = below[:n], above[:n]
    place[a], place[b] = place[b], place[a]
    return n
