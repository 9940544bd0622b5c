"""Criteo-format click logs: label, 13 integer features, 26 hashed categories, separated by tabs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError
from .batch import QueryBatch

__all__ = ["Criteo"]

DENSE, CATEGORIES = 13, 26


@dataclass(frozen=True)
class Criteo:
    """A Criteo file as queries: dense = log(1 + max(x, 0)) (missing 0), one lookup per category, index = hash mod
    ``rows``. The order of the file is kept (it is by time), so a split by position is a split by time."""

    queries: QueryBatch
    rows: int

    @classmethod
    def load(cls, path: str | Path, rows: int = 10_000, limit: int | None = None) -> Criteo:
        """Read ``path`` (at most ``limit`` lines). Raises :class:`DataError` naming line and field."""
        if rows < 1:
            raise DataError("rows", rows, "must be at least 1")
        dense, cats, labels = [], [], []
        with open(path) as f:
            for i, line in enumerate(f, 1):
                if limit is not None and i > limit:
                    break
                p = line.rstrip("\r\n").split("\t")
                if len(p) != 1 + DENSE + CATEGORIES:
                    raise DataError(f"criteo line {i}", len(p), f"must have {1 + DENSE + CATEGORIES} tab-separated fields")
                if p[0] not in ("0", "1"):
                    raise DataError(f"criteo line {i} label", p[0], "must be 0 or 1")
                labels.append(float(p[0]))
                try:
                    dense.append([int(x) if x else 0 for x in p[1 : 1 + DENSE]])
                    cats.append([int(x, 16) % rows if x else 0 for x in p[1 + DENSE :]])
                except ValueError as e:
                    raise DataError(f"criteo line {i}", str(e), "integers, then hexadecimal categories") from None
        if not labels:
            raise DataError("criteo", str(path), "must hold at least one line")
        table = np.array(cats, np.int64)
        offsets = np.arange(len(labels), dtype=np.int64)
        x = np.log1p(np.maximum(np.array(dense, np.float64), 0)).astype(np.float32)
        return cls(QueryBatch(x, tuple((table[:, t], offsets) for t in range(CATEGORIES)),
                              np.array(labels, np.float32)), rows)
