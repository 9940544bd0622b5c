"""Where things lie on the device: a table's rows in its pages, and tables in the logical blocks."""

from __future__ import annotations

import numpy as np

from ..contract import DataError, DeviceConfig, TableSpec
from ..contract.table import Extent

__all__ = ["ExtentAllocator", "table_pages"]


def table_pages(spec: TableSpec, rows: np.ndarray, config: DeviceConfig, first: int = 0, count: int | None = None
                ) -> np.ndarray:
    """Pages ``first`` .. ``first + count`` of a table as stored, uint8 [count, page_bytes]; ``rows`` uint8 [rows, bytes]."""
    size, per_page = spec.format.row_bytes(spec.dim), spec.rows_per_page(config)
    if rows.dtype != np.uint8 or rows.shape != (spec.rows, size):
        raise DataError("rows", (str(rows.dtype), rows.shape), f"must be uint8 [{spec.rows}, {size}]")
    count = spec.pages(config) - first if count is None else count
    stride = spec.stride_beats(config) * config.beat_bytes
    part = rows[first * per_page : (first + count) * per_page]
    slots = np.zeros((count * per_page, stride), np.uint8)
    slots[: len(part), :size] = part
    pages = np.zeros((count, config.flash.page_bytes), np.uint8)
    pages[:, : per_page * stride] = slots.reshape(count, -1)
    return pages


class ExtentAllocator:
    """Logical blocks that tables occupy; everything else is free for files."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._held: dict[int, tuple[Extent, ...]] = {}

    def take(self, table: int, pages: int, lba: int | None = None) -> tuple[Extent, ...]:
        """Extents for ``table``: at ``lba``, or the first gap that holds it, or several gaps."""
        cfg, need = self._config, pages
        gaps = self._gaps()
        if lba is not None:
            if not any(a <= lba and lba + pages <= b for a, b in gaps):
                raise DataError("lba", lba, f"blocks {lba} to {lba + pages - 1} must exist and hold no other table")
            out = [Extent(0, lba, pages)]
        else:
            whole = [a for a, b in gaps if b - a >= pages]
            pieces = [(whole[0], whole[0] + pages)] if whole else sorted(gaps, key=lambda g: g[0] - g[1])
            out, first = [], 0
            for a, b in pieces:
                if need:
                    n = min(need, b - a)
                    out.append(Extent(first, a, n))
                    first, need = first + n, need - n
            if (need and not whole) or len(out) > cfg.lookup.max_extents:
                raise DataError("pages", pages, f"do not fit the free blocks in {cfg.lookup.max_extents} extents")
        return self.hold(table, tuple(out))

    def hold(self, table: int, extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
        """Note the extents of a table that was placed by its user."""
        self._held[table] = extents
        return extents

    def release(self, table: int) -> None:
        self._held.pop(table, None)

    def reset(self, held: dict[int, tuple[Extent, ...]]) -> None:
        """Hold exactly these."""
        self._held = dict(held)

    def _gaps(self) -> list[tuple[int, int]]:
        """Free ranges [first, end)."""
        out, at = [], 0
        for e in sorted((e for es in self._held.values() for e in es), key=lambda e: e.lba):
            if e.lba > at:
                out.append((at, e.lba))
            at = e.lba + e.pages
        return [*out, (at, self._config.lbas)] if at < self._config.lbas else out
