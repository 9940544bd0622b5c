"""A run's lookups as storage sees them: which page of which die each one reads, and what caches would keep of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ..contract import DeviceConfig
from ..models import ModelSpec
from .device import tables_of
from .workload import Workload

__all__ = ["Traffic", "direct_mapped_hits", "first_touches", "flash_us", "lru_hits"]


@dataclass(frozen=True)
class Traffic:
    """Lookups in the order of the queries, int64 [lookups] each: ``query`` that asks, ``table``, ``row`` (a number of its
    own over all tables), ``page`` of the device's logical blocks, ``nbytes`` of the row. ``pages``: that all tables fill."""

    spec: ModelSpec
    config: DeviceConfig
    queries: int
    query: np.ndarray
    table: np.ndarray
    row: np.ndarray
    page: np.ndarray
    nbytes: np.ndarray
    pages: int

    @classmethod
    def of(cls, spec: ModelSpec, config: DeviceConfig, workload: Workload) -> Traffic:
        """All of ``workload``; the tables lie one behind the other, as the simulator places them."""
        bags = workload.first(workload.queries)
        parts, first_row, first_page = [], 0, 0
        for t, (table, (indices, offsets)) in enumerate(zip(tables_of(spec), bags, strict=True)):
            lengths = np.diff(np.append(offsets, len(indices)))
            query = np.repeat(np.arange(workload.queries), lengths)
            nbytes = np.full(len(indices), table.format.row_bytes(table.dim))
            parts.append((query, np.full(len(indices), t), first_row + indices,
                          first_page + indices // table.rows_per_page(config), nbytes))
            first_row, first_page = first_row + table.rows, first_page + table.pages(config)
        query, table, row, page, nbytes = (np.concatenate(c) for c in zip(*parts, strict=True))
        order = np.argsort(query, kind="stable")
        return cls(spec, config, workload.queries, query[order], table[order], row[order], page[order], nbytes[order],
                   first_page)

    def batches(self, batch: int) -> tuple[int, np.ndarray]:
        """(batches of ``batch`` queries, the batch that each lookup belongs to); queries left over make none."""
        return self.queries // batch, self.query // batch

    def per_batch(self, batch: int, weights: np.ndarray | float) -> np.ndarray:
        """Sums over each batch of a weight per lookup: float64 [batches]."""
        n, of = self.batches(batch)
        return np.bincount(of, np.broadcast_to(np.asarray(weights, np.float64), of.shape), minlength=n)[:n]


def first_touches(ids: np.ndarray) -> np.ndarray:
    """bool [n]: the first time that this number comes."""
    out = np.zeros(len(ids), bool)
    out[np.unique(ids, return_index=True)[1]] = True
    return out


def lru_hits(ids: np.ndarray, capacity: int) -> np.ndarray:
    """bool [n]: what a cache of ``capacity`` numbers, empty at first, that drops the least recently used one, answers."""
    again = ~first_touches(ids)
    if len(ids) - int(again.sum()) <= capacity:  # all fit
        return again
    kept: OrderedDict[int, None] = OrderedDict()
    out = np.zeros(len(ids), bool)
    for i, x in enumerate(ids.tolist()):
        out[i] = x in kept
        kept[x] = None
        kept.move_to_end(x)
        if len(kept) > capacity:
            kept.popitem(last=False)
    return out


def direct_mapped_hits(ids: np.ndarray, lines: int) -> np.ndarray:
    """bool [n]: what a cache of ``lines`` lines, empty at first, number ``i`` in line ``i % lines``, answers."""
    line = ids % lines
    order = np.argsort(line, kind="stable")
    same = np.zeros(len(ids), bool)
    same[1:] = (line[order][1:] == line[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    out = np.zeros(len(ids), bool)
    out[order] = same
    return out


def flash_us(t: Traffic, batch: int, reads: np.ndarray, whole_pages: bool) -> np.ndarray:
    """How long the flash is busy with each batch's ``reads`` (bool [lookups]): us, float64 [batches].

    A die serves one read in tR and the transfer, a channel's bus one transfer at a time: the busiest die or bus of the batch
    counts. Nothing is lost between reads, and reads of other batches don't help, so this is neither the ceiling of evenly
    loaded dies nor the simulator's time.
    """
    c, f = t.config, t.config.flash
    channel = t.page % f.channels
    die = channel * f.channel_planes + t.page // f.channels % f.channel_planes
    beats = -(-(np.full_like(t.nbytes, f.page_bytes) if whole_pages else t.nbytes) // c.beat_bytes)
    bus = -(-beats * c.bus_beat_q16 // 65536)
    n, of = t.batches(batch)
    inside = reads & (of < n)

    def busiest(units: int, unit: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        load = np.bincount(of[inside] * units + unit[inside], cycles[inside].astype(np.float64), minlength=n * units)
        return load.reshape(n, units).max(axis=1)

    cycles = np.maximum(busiest(f.channels * f.channel_planes, die, c.t_read + bus), busiest(f.channels, channel, bus))
    return cycles / c.clock_mhz
