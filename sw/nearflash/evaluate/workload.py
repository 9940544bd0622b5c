"""Streams of lookups for the simulator of time: of any length, a command at a time, on tables that are never allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..compiler import with_room
from ..contract import ConfigError, DataError, DeviceConfig
from ..data import QueryBatch, StackDistance, read_histograms, synthetic_queries
from ..data.dlrm_datasets import read_dlrm_dataset
from ..data.traces import read_dlrm_trace
from ..models import ModelSpec
from ..runtime.placement import Placement

__all__ = ["Bags", "Workload", "dataset_bags", "fitting", "histogram", "placed", "scaled", "stored", "synthetic", "trace"]

#: Of a command, per table: (indices int64 [n], offsets int64 [queries]), as torch.nn.EmbeddingBag takes them.
Bags = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class Workload:
    """``queries`` queries from ``source`` (for reports). ``commands(batch)`` begins the stream anew: bags of at most
    ``batch`` queries at a time."""

    source: str
    queries: int
    commands: Callable[[int], Iterator[Bags]]

    def first(self, queries: int) -> Bags:
        """The bags of the first ``queries`` queries, or of all there are."""
        return next(self.commands(queries))


def scaled(spec: ModelSpec, total_bytes: float) -> ModelSpec:
    """``spec`` with every table's rows in proportion so that fp32 rows, or those of its format, total ``total_bytes``."""
    now = sum(t.rows * t.row_format.row_bytes(t.dim) for t in spec.tables)
    factor = total_bytes / now
    return replace(spec, tables=tuple(replace(t, rows=max(1, round(t.rows * factor))) for t in spec.tables))


def fitting(spec: ModelSpec, config: DeviceConfig) -> ModelSpec:
    """``spec``, or with all tables' rows halved until the largest flash of ``config``'s shape holds them. Raises
    :class:`~nearflash.contract.ConfigError` where one row of each is too much."""
    while True:
        try:
            with_room(spec, config)
            return spec
        except ConfigError:
            if all(t.rows == 1 for t in spec.tables):
                raise
            spec = replace(spec, tables=tuple(replace(t, rows=-(-t.rows // 2)) for t in spec.tables))


def synthetic(spec: ModelSpec, queries: int, k: float, seed: int = 0) -> Workload:
    """Each table's indices from :class:`~nearflash.data.StackDistance` with parameter ``k``, its bags all of the table's
    lookups. Memory depends neither on ``queries`` nor on the tables' rows. Raises :class:`DataError` for ``k``."""
    StackDistance(1, k)  # a bad k is refused before the work

    def commands(batch: int) -> Iterator[Bags]:
        draw = [StackDistance(t.rows, k, seed=seed * 1000 + i).draw for i, t in enumerate(spec.tables)]
        for start in range(0, queries, batch):
            n = min(batch, queries - start)
            yield tuple((d(n * t.lookups), np.arange(n, dtype=np.int64) * t.lookups)
                        for d, t in zip(draw, spec.tables, strict=True))

    return Workload(f"locality generator, K = {k:g}", queries, commands)


def stored(source: str, q: QueryBatch) -> Workload:
    """Queries that are in memory."""
    return Workload(source, len(q), lambda batch: (q[i : i + batch].bags for i in range(0, len(q), batch)))


def placed(work: Workload, placement: Placement, name: str) -> Workload:
    """The same queries for tables in the order of ``placement``. Raises :class:`DataError` for a row that it lacks."""
    def commands(batch: int) -> Iterator[Bags]:
        for bags in work.commands(batch):
            yield tuple((indices, offsets) for indices, offsets in placement.bags(bags))

    return Workload(f"{work.source}, rows placed by {name}", work.queries, commands)


def histogram(spec: ModelSpec, queries: int, path: Path, seed: int = 0) -> Workload:
    """Indices that reproduce the first published histogram of ``path``; the stream is held in memory."""
    shapes = [(t.rows, t.lookups) for t in spec.tables]
    return stored(f"histogram {path.name}", synthetic_queries(shapes, 0, queries, histogram=read_histograms(path)[0],
                                                              seed=seed))


def trace(spec: ModelSpec, queries: int | None, path: Path) -> Workload:
    """A DLRM trace log, handed out query by query and table by table; all of it, or ``queries`` queries, beginning again
    at its end. Raises :class:`DataError` for one that holds less than a query, and for a row that a table lacks."""
    indices = read_dlrm_trace(path)
    if len(indices) < spec.lookups:
        raise DataError("indices", len(indices), f"must hold at least one query's lookups ({spec.lookups})", str(path))
    shapes = [(t.rows, t.lookups) for t in spec.tables]
    return stored(f"trace {path.name}", synthetic_queries(shapes, 0, queries or len(indices) // spec.lookups, trace=indices))


def dataset_bags(spec: ModelSpec, queries: int | None, path: Path) -> Workload:
    """A file of facebookresearch/dlrm_datasets: its first tables, as many as the model has. Raises :class:`DataError` for
    one with fewer tables and for a row that a table lacks."""
    bags: Sequence[tuple[np.ndarray, np.ndarray]] = read_dlrm_dataset(path)
    if len(bags) < len(spec.tables):
        raise DataError("tables", len(bags), f"must be at least the model's {len(spec.tables)}", str(path))
    for t, (table, (indices, _)) in enumerate(zip(spec.tables, bags, strict=False)):
        if len(indices) and indices.max() >= table.rows:
            raise DataError(f"index for table {t}", int(indices.max()), f"must be below the table's {table.rows} rows",
                            str(path))
    n = len(bags[0][1])
    q = QueryBatch(np.zeros((n, 0), np.float32), tuple(bags[: len(spec.tables)]))
    return stored(f"{path.name}, {len(spec.tables)} of {len(bags)} tables", q[: queries or n])
