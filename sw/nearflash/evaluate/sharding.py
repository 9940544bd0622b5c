"""Tables over several devices: whole ones by size and heat, and rows of those that are too large or too hot for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from ..contract import ConfigError, DataError, DeviceConfig, TableSpec
from ..contract.table import PoolMode
from ..models import ModelSpec
from .device import tables_of
from .workload import Bags

__all__ = ["MOST_DEVICES", "Heat", "Piece", "ShardPlan", "capacity_pages", "plan_shards"]

MOST_DEVICES = 64
ROUNDING = 1e-9  # of a share, so that eight equal tables on eight devices stay whole


@dataclass(frozen=True)
class Heat:
    """How often a table of ``rows`` rows is asked for: ``lookups`` a query, ``seen`` rows (int64, ascending) with the
    lookups that were ``before`` each (int64 [seen + 1], the last is all). Rows never seen get, evenly, the share ``unseen``
    of the lookups, those that were the only one of their row: how likely the next lookup is of a new one (Good, Biometrika
    40, 1953)."""

    rows: int
    lookups: float
    seen: np.ndarray
    before: np.ndarray
    unseen: float

    @classmethod
    def of(cls, rows: int, indices: np.ndarray, queries: int) -> Heat:
        seen, counts = np.unique(indices, return_counts=True)
        unseen = float((counts == 1).sum()) / len(indices) if len(indices) else 1.0
        return cls(rows, len(indices) / queries, seen, np.concatenate([[0], np.cumsum(counts)]), unseen)

    def below(self, row: int) -> float:
        """The share of lookups expected of rows before ``row``."""
        known = self.before[np.searchsorted(self.seen, row)] / max(1, self.before[-1])
        return float((1 - self.unseen) * known + self.unseen * row / self.rows)

    def row_at(self, share: float) -> int:
        """The first row before which there is at least ``share``."""
        low, high = 0, self.rows
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.below(middle) >= share else (middle + 1, high)
        return low


@dataclass(frozen=True)
class Piece:
    """``rows`` rows of ``table`` from ``first`` on lie on ``device``, which they keep busy for ``cycles`` a query."""

    table: int
    first: int
    rows: int
    cycles: float
    pages: int
    device: int = -1


@dataclass(frozen=True)
class ShardPlan:
    """Where a model's rows are. ``pieces`` in the order of their tables and rows; a device has its own in that order as its
    tables 0, 1, ..."""

    spec: ModelSpec
    devices: int
    pieces: tuple[Piece, ...]

    def on(self, device: int) -> list[Piece]:
        return [p for p in self.pieces if p.device == device]

    @property
    def used(self) -> list[int]:
        """Devices that hold anything."""
        return sorted({p.device for p in self.pieces})

    def parts(self, table: int) -> int:
        return sum(p.table == table for p in self.pieces)

    def tables(self, device: int) -> list[TableSpec]:
        """What ``device`` is given: parts of a table whose mode is the mean are summed, and divided by the host."""
        whole = tables_of(self.spec)
        return [replace(whole[p.table], rows=p.rows,
                        mode=PoolMode.SUM if self.parts(p.table) > 1 else whole[p.table].mode) for p in self.on(device)]

    def split(self, bags: Bags) -> list[Bags]:
        """A command's bags for each device of :attr:`used`, of its own tables and rows."""
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {d: [] for d in self.used}
        for p in self.pieces:
            indices, offsets = bags[p.table]
            if p.rows == self.spec.tables[p.table].rows:
                found[p.device].append((indices, offsets))
                continue
            mine = (indices >= p.first) & (indices < p.first + p.rows)
            before = np.concatenate([[0], np.cumsum(mine)])  # of each place in the stream
            found[p.device].append((indices[mine] - p.first, before[offsets]))
        return [tuple(found[d]) for d in self.used]

    def combine(self, bags: Bags, results: Sequence[np.ndarray]) -> np.ndarray:
        """Pooled vectors of all tables, float32 [queries, sum of dims], from those that each device of :attr:`used` gave for
        its part of ``bags``. Partial sums are added in fp32 in the order of their rows, so the result of a table in parts
        may differ from one device's by a rounding for each part."""
        dims, queries = [t.dim for t in self.spec.tables], len(bags[0][1])
        starts = np.cumsum([0, *dims])
        out = np.zeros((queries, starts[-1]), np.float32)
        taken = dict.fromkeys(self.used, 0)
        given = dict(zip(self.used, results, strict=True))
        for p in self.pieces:
            at, dim = taken[p.device], dims[p.table]
            out[:, starts[p.table] : starts[p.table + 1]] += given[p.device][:, at : at + dim]
            taken[p.device] = at + dim
        for t, table in enumerate(self.spec.tables):
            if table.pool_mode == PoolMode.MEAN and self.parts(t) > 1:
                indices, offsets = bags[t]
                lengths = np.diff(np.append(offsets, len(indices)))[:, None]
                out[:, starts[t] : starts[t + 1]] /= np.maximum(lengths, 1).astype(np.float32)
        return out


def capacity_pages(config: DeviceConfig, most_gb: float | None = None) -> int:
    """Logical blocks of the largest device of this shape, or of ``most_gb``. Raises
    :class:`~nearflash.contract.ConfigError` for less than a page a die."""
    if most_gb is not None:
        pages, stripe = int(most_gb * 1e9) // config.flash.page_bytes, config.flash.channels * config.flash.channel_planes
        if pages < stripe:
            raise ConfigError("device_gb", most_gb, f"must hold a page of {config.flash.page_bytes} bytes on each of "
                              f"{stripe} dies")
        return pages
    while True:
        try:
            config = replace(config, flash=replace(config.flash, blocks=config.flash.blocks * 2))
        except ConfigError:
            return config.lbas


def plan_shards(spec: ModelSpec, config: DeviceConfig, heats: Sequence[Heat], devices: int, capacity: int) -> ShardPlan:
    """A plan for ``devices`` devices of ``capacity`` logical blocks each.

    A table with more pages than a device has, or more flash cycles a query than a device's share of all, is cut into as few
    ranges of rows as are within both, equally hot where size allows. What results goes, the hottest first, to the device
    with the least to do among those with room (longest processing time first: Graham, SIAM J. Appl. Math. 17(2), 1969).
    What has room nowhere is cut where the emptiest device is full. Raises :class:`~nearflash.contract.DataError` where all
    devices together are too small, and for more tables than a device may have."""
    if not 1 <= devices <= MOST_DEVICES:
        raise DataError("devices", devices, f"must be from 1 to {MOST_DEVICES}")
    whole = tables_of(spec)
    cost = [config.ceiling_cycles_per_lookup(t.stride_beats(config) * config.beat_bytes) for t in whole]
    share = sum(h.lookups * c for h, c in zip(heats, cost, strict=True)) / devices
    stripe = config.flash.channels * config.flash.channel_planes

    def piece(t: int, first: int, last: int) -> Piece:
        part = replace(whole[t], rows=last - first)
        return Piece(t, first, last - first, heats[t].lookups * cost[t] * (heats[t].below(last) - heats[t].below(first)),
                     part.pages(config))

    def rows_within(t: int, pages: int) -> int:
        return pages // stripe * stripe * (config.page_beats // whole[t].stride_beats(config))

    waiting: list[Piece] = []
    for t, (table, heat) in enumerate(zip(whole, heats, strict=True)):
        most = max(1, rows_within(t, capacity))
        hot = ceil(heat.lookups * cost[t] / share - ROUNDING) if share else 1
        left = min(table.rows, max(1, hot, -(-table.rows // most)))
        first = 0
        while left:
            rest = 1 - heat.below(first)
            last = table.rows if left == 1 else heat.row_at(heat.below(first) + rest / left)
            last = min(max(last, table.rows - (left - 1) * most, first + 1), first + most, table.rows - left + 1)
            waiting.append(piece(t, first, last))
            first, left = last, left - 1
    waiting.sort(key=lambda p: (p.cycles, p.pages))
    busy, free, count = [0.0] * devices, [capacity] * devices, [0] * devices
    placed: list[Piece] = []
    while waiting:
        p = waiting.pop()
        able = [d for d in range(devices) if count[d] < config.lookup.max_tables]
        if not able:
            raise DataError("tables", len(placed) + 1 + len(waiting), f"must be at most lookup.max_tables "
                            f"({config.lookup.max_tables}) on each of {devices} devices")
        fit = [d for d in able if p.pages <= free[d]]
        if fit:
            d = min(fit, key=lambda d: (busy[d], -free[d], d))
        else:
            d = max(able, key=lambda d: (free[d], -d))
            rows = rows_within(p.table, free[d])
            if rows < 1:
                pages = sum(t.pages(config) for t in whole)
                raise DataError("devices", devices, f"must be more: the tables take {pages} pages, a device has {capacity}")
            waiting.append(piece(p.table, p.first + rows, p.first + p.rows))
            p = piece(p.table, p.first, p.first + rows)
        busy[d], free[d], count[d] = busy[d] + p.cycles, free[d] - p.pages, count[d] + 1
        placed.append(replace(p, device=d))
    return ShardPlan(spec, devices, tuple(sorted(placed, key=lambda p: (p.table, p.first))))
