"""Criteo-format click logs: label, 13 integer features, 26 hashed categories, separated by tabs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading
from .batch import QueryBatch

__all__ = ["CATEGORIES", "Criteo"]

DENSE, CATEGORIES = 13, 26
LONGEST_LINE = 1 << 12  # bytes: 40 fields of at most 20 characters
_HASH = re.compile(r"[0-9a-fA-F]{1,16}")


@dataclass(frozen=True)
class Criteo:
    """A Criteo file as queries: dense = log(1 + max(x, 0)) (missing 0), one lookup per category, index = hash mod the
    table's rows. The order of the file is kept (it is by time), so a split by position is a split by time."""

    queries: QueryBatch
    rows: tuple[int, ...]

    @classmethod
    def load(cls, path: str | Path, rows: int | Sequence[int] = 10_000, limit: int | None = None) -> Criteo:
        """Read ``path``, plain or gzip (at most ``limit`` lines; empty lines at the end don't count). ``rows``: of every
        table, or of each. Raises :class:`DataError` naming file, line and field."""
        sizes = (rows,) * CATEGORIES if isinstance(rows, int) else tuple(rows)
        if len(sizes) != CATEGORIES or min(sizes) < 1:
            raise DataError("rows", rows, f"must be at least 1, of every table or of each of {CATEGORIES}")
        dense: list[list[int]] = []
        cats: list[list[int]] = []
        labels: list[float] = []
        empty = 0  # the first of the empty lines just read
        with reading(path):
            for i, line in read_lines(path, LONGEST_LINE):
                if limit is not None and len(labels) == limit:
                    break
                if not line:
                    empty = empty or i
                    continue
                if empty:
                    raise DataError(f"line {empty}", "", "is empty: only lines at the end may be")
                p = line.split("\t")
                if len(p) != 1 + DENSE + CATEGORIES:
                    raise DataError(f"line {i}", len(p), f"must have {1 + DENSE + CATEGORIES} tab-separated fields")
                if p[0] not in ("0", "1"):
                    raise DataError(f"line {i} label", p[0], "must be 0 or 1")
                labels.append(float(p[0]))
                dense.append([integer(x, f"line {i} feature {k}") if x else 0 for k, x in enumerate(p[1 : 1 + DENSE], 1)])
                cats.append([_category(x, i, k) % n if x else 0 for k, (x, n) in enumerate(
                    zip(p[1 + DENSE :], sizes, strict=True), 1)])
            if not labels:
                raise DataError("lines", 0, "must hold at least one line")
        table = np.array(cats, np.int64)
        offsets = np.arange(len(labels), dtype=np.int64)
        x = np.log1p(np.maximum(np.array(dense, np.float64), 0)).astype(np.float32)
        return cls(QueryBatch(x, tuple((table[:, t], offsets) for t in range(CATEGORIES)),
                              np.array(labels, np.float32)), sizes)


def _category(text: str, line: int, number: int) -> int:
    if not _HASH.fullmatch(text):
        raise DataError(f"line {line} category {number}", text, "must be 1 to 16 hexadecimal digits")
    return int(text, 16)
