"""Synthetic index streams with the locality of real embedding traces.

:class:`StackDistance` is the K-parameter model RecSSD and RM-SSD use; :class:`HistogramLocality` reproduces the published
reuse histograms of facebookresearch/dlrm_datasets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading

__all__ = ["Histogram", "HistogramLocality", "StackDistance", "read_histograms"]

LARGEST_BIN = 1 << 40  # accesses per row
SHUFFLED = 1 << 20  # rows up to which a table's order is a list in memory


class _Order:
    """A permutation of ``rows`` numbers that takes no memory: a Feistel network of four rounds over the next power of four,
    applied again to a number that comes out too large (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002)."""

    ROUNDS, BLOCK = 4, 4096

    def __init__(self, rows: int, rng: np.random.Generator):
        self.rows = rows
        self.half = np.uint64(-(-(rows - 1).bit_length() // 2))
        self.keys = rng.integers(1 << 63, size=(self.ROUNDS, 2), dtype=np.uint64) | np.uint64(1)
        self._block, self._numbers = -1, np.zeros(0, np.int64)

    def __getitem__(self, i: int) -> int:
        if i // self.BLOCK != self._block:
            self._block = i // self.BLOCK
            self._numbers = self._permuted(self._block * self.BLOCK, min(self.rows, (self._block + 1) * self.BLOCK))
        return int(self._numbers[i % self.BLOCK])

    def _permuted(self, start: int, stop: int) -> np.ndarray:
        x = self._rounds(np.arange(start, stop, dtype=np.uint64))
        while (out := x >= self.rows).any():  # every cycle leads back below rows
            x[out] = self._rounds(x[out])
        return x.astype(np.int64)

    def _rounds(self, x: np.ndarray) -> np.ndarray:
        mask = (np.uint64(1) << self.half) - np.uint64(1)
        left, right = x >> self.half, x & mask
        for a, b in self.keys:
            mixed = (right * a + b) ^ ((right * a + b) >> np.uint64(29))
            left, right = right, left ^ ((mixed * a >> np.uint64(31)) & mask)
        return left << self.half | right


class StackDistance:
    """Indices whose LRU stack distances follow an exponential histogram with extra weight ``k`` on new rows.

    1,000 samples of Exp(1) in a 50-bin density histogram; bin 0 gains ``k`` times the histogram's sum; normalised, it is
    the distribution of the stack distance d: 0 is a new row (round-robin through a shuffled table), d > 0 the d-th most
    recently used row. A distance beyond the rows seen so far is a new row. (RecSSD, ASPLOS 2021; RM-SSD, HPCA 2022.)
    """

    BINS, SAMPLES = 50, 1000

    def __init__(self, rows: int, k: float, seed: int = 0):
        if rows < 1:
            raise DataError("rows", rows, "must be at least 1")
        if not 0 <= k < 1e6:
            raise DataError("locality", k, "must be at least 0 (and finite)")
        self.rows, self.k = rows, k
        self.rng = np.random.default_rng(seed)
        hist, _ = np.histogram(self.rng.exponential(1.0, self.SAMPLES), self.BINS, density=True)
        hist[0] += hist.sum() * k
        self.distribution = hist / hist.sum()
        self._cdf = np.cumsum(self.distribution)
        self._order = self.rng.permutation(rows) if rows <= SHUFFLED else _Order(rows, self.rng)
        self._next = 0
        self._stack: list[int] = []  # most recent last; only the reachable depth is kept

    @property
    def expected_reuse(self) -> float:
        """Share of accesses that go to an earlier row, once the stack is warm."""
        return float(1 - self.distribution[0])

    def draw(self, n: int) -> np.ndarray:
        """The next ``n`` indices, int64."""
        out = np.empty(n, np.int64)
        distances = np.searchsorted(self._cdf, self.rng.random(n), side="right")
        stack, depth = self._stack, self.BINS
        for i, d in enumerate(distances):
            if d == 0 or d > len(stack):
                row = int(self._order[self._next])
                self._next = (self._next + 1) % self.rows
                if row in stack:  # the table wrapped around
                    stack.remove(row)
            else:
                row = stack.pop(-int(d))
            stack.append(row)
            if len(stack) > depth:
                stack.pop(0)
            out[i] = row
        return out


@dataclass(frozen=True)
class Histogram:
    """Accesses per distinct row: ``edges[i] < size <= edges[i+1]`` (the last bin is open), ``rows[i]`` share of the distinct
    rows, ``accesses[i]`` share of the accesses, ``mean`` accesses per distinct row."""

    name: str
    mean: float
    edges: tuple[int, ...]
    rows: tuple[float, ...]
    accesses: tuple[float, ...]


def read_histograms(path: str | Path) -> list[Histogram]:
    """The ``locality_stats_*.txt`` files of facebookresearch/dlrm_datasets. Raises :class:`DataError` naming the file and
    the histogram."""
    out = []
    with reading(path):
        text = "\n".join(line for _, line in read_lines(path, 1 << 16))
        for block in re.split(r"\n(?=\S+\.pt\n)", text):
            name = block.split("\n", 1)[0].strip()
            mean = re.search(r"Avg col size: (\S+)", block)
            parts = block.split("Ratio of index distribution")
            if mean and len(parts) == 2:
                out.append(_histogram(name, mean[1], parts))
        if not out:
            raise DataError("histogram", None, "none found: must be a dlrm_datasets locality_stats file")
    return out


def _histogram(name: str, mean: str, parts: list[str]) -> Histogram:
    """From a block's text before and after its second heading."""
    bins = [re.findall(r"\((\d+)(?:, (\d+)\]|\+): (\S+)", p, re.ASCII) for p in parts]
    if not bins[0] or [b[:2] for b in bins[0]] != [b[:2] for b in bins[1]]:
        raise DataError(name, [len(b) for b in bins], "the two histograms must have the same bins, at least one")
    edges = [integer(b[0], f"{name} bin", 0, LARGEST_BIN) for b in bins[0]]
    uppers = [integer(b[1], f"{name} bin", 1, LARGEST_BIN) if b[1] else None for b in bins[0]]
    if uppers != [*edges[1:], None] or edges != sorted(set(edges)):
        raise DataError(f"{name} bins", edges, "must follow each other, the last without an end")
    rows, accesses = ([_number(b[2], f"{name} share", 0, 1) for b in part] for part in bins)
    if not sum(accesses) > 0:
        raise DataError(f"{name} shares", accesses, "must not all be 0")
    return Histogram(name, _number(mean, f"{name} Avg col size", 1, LARGEST_BIN), tuple(edges), tuple(rows), tuple(accesses))


def _number(text: str, field: str, low: float, high: float) -> float:
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{0,30})?(e-?[0-9]{1,3})?", text) or not low <= float(text) <= high:
        raise DataError(field, text, f"must be a number from {low} to {high}")
    return float(text)


class HistogramLocality:
    """Indices whose accesses per row reproduce a published :class:`Histogram`.

    Each bin receives its share of the accesses, handed to rows whose sizes are spread over the bin so that the bin's
    share of rows is met too; the accesses are shuffled. A bin whose smallest row would exceed the accesses asked for
    (the far tail, in short streams) is served by one row.
    """

    def __init__(self, histogram: Histogram, rows: int, seed: int = 0):
        if rows < 1:
            raise DataError("rows", rows, "must be at least 1")
        self.histogram, self.rows, self.rng = histogram, rows, np.random.default_rng(seed)

    def draw(self, n: int) -> np.ndarray:
        """A stream of ``n`` indices, int64."""
        h = self.histogram
        edges = (*h.edges, 2 * h.edges[-1])
        sizes: list[int] = []
        total = sum(h.accesses)
        carry = 0.0
        for i, (share_rows, share) in enumerate(zip(h.rows, h.accesses, strict=True)):
            budget = n * share / total + carry
            lo, hi = edges[i] + 1, edges[i + 1]
            # the bin's mean size, where three decimals resolve it; else the middle of the bin on a log scale
            mean = share * h.mean / share_rows if share_rows >= 0.004 else (lo * hi) ** 0.5
            mean = min(max(mean, lo), hi)
            count = max(0, round(budget / mean))  # the bin before may have taken more than its share
            if count:
                if hi > lo:  # two-point spread around the mean keeps every size inside the bin
                    span = min(mean - lo, hi - mean)
                    s = mean + self.rng.uniform(-span, span, count)
                else:
                    s = np.full(count, float(lo))
                s = np.clip(np.floor(s + self.rng.random(count)), lo, hi).astype(int)
                sizes += s.tolist()
                carry = budget - float(s.sum())
            else:
                carry = budget
        if carry >= 1:  # what the far tail could not place goes to one hot row
            sizes.append(int(carry))
        if len(sizes) > self.rows:
            raise DataError("rows", self.rows, f"this histogram needs {len(sizes)} distinct rows for {n} accesses")
        ids = (self.rng.permutation(self.rows)[: len(sizes)] if self.rows <= SHUFFLED else
               self.rng.choice(self.rows, len(sizes), replace=False))  # which needs no list of all rows
        stream = np.repeat(ids, sizes)
        self.rng.shuffle(stream)
        if len(stream) < n:
            stream = np.concatenate([stream, self.rng.choice(stream if len(stream) else ids, n - len(stream))])
        return stream[:n].astype(np.int64)
