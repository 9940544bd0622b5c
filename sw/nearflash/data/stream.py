"""Streams of queries for a model: from a locality generator, a published histogram, or a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..contract import DataError
from .batch import QueryBatch
from .locality import Histogram, HistogramLocality, StackDistance

__all__ = ["synthetic_queries"]


def synthetic_queries(shapes: Sequence[tuple[int, int]], dense: int, queries: int, *, k: float = 0.3,
                      histogram: Histogram | None = None, trace: np.ndarray | None = None, seed: int = 0) -> QueryBatch:
    """``queries`` queries for tables of ``shapes`` = (rows, lookups per query), with ``dense`` standard normal features.

    Indices of each table come from :class:`StackDistance` with parameter ``k``, or from ``histogram`` (a published reuse
    histogram), or from ``trace`` (indices handed out in order, query by query and table by table, starting again at its
    end). Raises :class:`DataError` when a trace's index does not exist in its table.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((queries, dense)).astype(np.float32)
    draw: list[Callable[[int], np.ndarray]] = []
    if trace is None:
        for t, (rows, _) in enumerate(shapes):
            source = (StackDistance(rows, k, seed=seed * 1000 + t) if histogram is None else
                      HistogramLocality(histogram, rows, seed=seed * 1000 + t))
            draw.append(source.draw)
        per_table = [d(queries * lookups) for d, (_, lookups) in zip(draw, shapes, strict=True)]
    else:
        per_query = sum(n for _, n in shapes)
        flat = np.resize(trace, queries * per_query).reshape(queries, per_query)
        ends = np.cumsum([n for _, n in shapes])
        per_table = [flat[:, e - n : e].reshape(-1) for e, (_, n) in zip(ends, shapes, strict=True)]
        for t, (indices, (rows, _)) in enumerate(zip(per_table, shapes, strict=True)):
            if len(indices) and indices.max() >= rows:
                raise DataError(f"trace index for table {t}", int(indices.max()), f"must be below the table's {rows} rows")
    bags = tuple((np.ascontiguousarray(i, np.int64), np.arange(queries, dtype=np.int64) * n)
                 for i, (_, n) in zip(per_table, shapes, strict=True))
    return QueryBatch(x, bags)
