"""Queries as the simulator takes them: where each lookup's row lies, not what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.contract.table import Extent
from nearflash.runtime.queries import normalize_bags

__all__ = ["Batch", "locate", "place", "rows_of", "tables_end"]


@dataclass(frozen=True)
class Batch:
    """A command: INFER, of ``dense`` features a sample, or LOOKUP; a bag of rows for every table from 0 on and every sample.

    ``lengths`` int64 [tables, samples]; ``indices``: per table, the rows of its bags one after the other.
    """

    infer: bool
    dense: int
    lengths: np.ndarray
    indices: tuple[np.ndarray, ...]
    weighted: bool = False

    @classmethod
    def of(cls, bags: Sequence, infer: bool = False, dense: int = 0) -> Batch:
        """From (indices, offsets[, weights]) per table, as :meth:`nearflash.runtime.Device.submit` takes them. Raises
        :class:`~nearflash.contract.DataError`."""
        tables = normalize_bags(bags)
        return cls(infer, dense, np.stack([lengths for _, lengths, _ in tables]), tuple(i for i, _, _ in tables),
                   any(w is not None for _, _, w in tables))

    @property
    def samples(self) -> int:
        return self.lengths.shape[1]

    @property
    def lookups(self) -> int:
        return int(self.lengths.sum())

    @property
    def words(self) -> int:
        """32-bit words of the command's query stream (:mod:`nearflash.contract.nvme`)."""
        return self.samples * self.dense + self.lengths.size + self.lookups * (2 if self.weighted else 1)

    def check(self, config: DeviceConfig, tables: Sequence[TableSpec]) -> None:
        """Raises :class:`~nearflash.contract.DataError` for what the device would refuse, but for rows that there aren't
        (:func:`rows_of`)."""
        h, graph = config.host, config.mlp.graph
        if not 1 <= self.samples <= h.max_batch:
            raise DataError("batch", self.samples, f"must be from 1 to host.max_batch ({h.max_batch})")
        if not 1 <= len(self.indices) <= len(tables):
            raise DataError("bags", len(self.indices), f"must be from 1 to the tables there are ({len(tables)})")
        for t, longest in enumerate(self.lengths.max(axis=1).tolist()):
            limit = min(config.lookup.max_bag, 1 << tables[t].headroom)
            if longest > limit:
                raise DataError(f"bags[{t}]", longest, f"a bag holds at most {limit} lookups")
        if not self.infer:
            if self.dense:
                raise DataError("dense", self.dense, "a LOOKUP has no dense features")
            return
        want = sum(n.width for n in graph if n.kind == "dense"), sum(len(n.tables) for n in graph)
        if not graph or (self.dense, len(self.indices)) != want:
            raise DataError("dense, bags", (self.dense, len(self.indices)), f"must be the model's {want}")


def place(config: DeviceConfig, specs: Sequence[TableSpec]) -> list[TableSpec]:
    """The tables one behind the other from logical block 0 on, as an empty device places them. Raises
    :class:`~nearflash.contract.DataError` if they do not fit."""
    out, lba = [], 0
    for spec in specs:
        pages = spec.pages(config)
        out.append(replace(spec, extents=(Extent(0, lba, pages),)))
        lba += pages
        out[-1].validate(config)
    return out


def tables_end(specs: Sequence[TableSpec]) -> int:
    """The logical block behind all tables."""
    return max((e.lba + e.pages for spec in specs for e in spec.extents), default=0)


def rows_of(batches: Sequence[Batch], t: int, spec: TableSpec) -> np.ndarray:
    """Rows (int64) of table ``t`` that ``batches`` look up, one after the other. Raises
    :class:`~nearflash.contract.DataError` for one that the table doesn't have."""
    rows = np.concatenate([np.zeros(0, np.int64), *(b.indices[t] for b in batches if t < len(b.indices))])
    if len(rows) and not 0 <= rows.min() <= rows.max() < spec.rows:
        bad = int(rows[(rows < 0) | (rows >= spec.rows)][0])
        raise DataError(f"bags[{t}].indices", bad, f"must be from 0 to {spec.rows - 1}")
    return rows


def locate(config: DeviceConfig, spec: TableSpec, rows: np.ndarray) -> np.ndarray:
    """Logical blocks (int64) of ``rows``."""
    page = rows // spec.rows_per_page(config)
    if len(spec.extents) == 1:
        return page + (spec.extents[0].lba - spec.extents[0].first_page)
    first = np.array([e.first_page for e in spec.extents])
    lba = np.array([e.lba for e in spec.extents])
    k = np.searchsorted(first, page, side="right") - 1
    return lba[k] + page - first[k]
