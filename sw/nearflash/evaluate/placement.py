"""What orders of a model's rows are worth, learnt from some queries and measured on later ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..contract import DataError, DeviceConfig
from ..contract.modelled import Modelled
from ..contract.registers import plane_counters
from ..data import HistogramLocality, QueryBatch
from ..data.locality import Histogram
from ..models import ModelSpec
from ..placement import METHODS, Geometry, learn, striped
from ..runtime.placement import Placement
from ..tools import load_tool
from .device import tables_of
from .workload import Workload, placed

__all__ = ["BASELINE", "compare_orders", "drawn_years", "halves"]

BASELINE = "striped"  # RM-SSD's: consecutive rows in consecutive dies


def halves(q: QueryBatch, share: float) -> tuple[QueryBatch, QueryBatch]:
    """(the first ``share`` of the queries, to learn from; the others, to measure on). Raises
    :class:`~nearflash.contract.DataError` if one of them would be empty."""
    cut = int(len(q) * share)
    if not 0 < cut < len(q):
        raise DataError("learn_share", share, f"must leave one of {len(q)} queries or more to learn from and to measure on")
    return q[:cut], q[cut:]


def drawn_years(spec: ModelSpec, before: Histogram, after: Histogram, queries: int, drift: float, seed: int
                ) -> tuple[QueryBatch, QueryBatch]:
    """Queries to learn from, with the reuse of ``before``, and others to measure on, with that of ``after``.

    Published histograms don't say which rows are the hot ones. Here the second one's hottest rows are the first one's, rank
    by rank, but for a share ``drift`` of them, chosen at random, which are rows that the first never asks for. Raises
    :class:`~nearflash.contract.DataError` for a table of too few rows.
    """
    if not 0 <= drift <= 1:
        raise DataError("drift", drift, "must be from 0 to 1")
    rng = np.random.default_rng(seed)
    bags: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]
    for t, table in enumerate(spec.tables):
        n, offsets = queries * table.lookups, np.arange(queries, dtype=np.int64) * table.lookups
        first, second = (HistogramLocality(h, table.rows, seed=seed * 1000 + 2 * t + k).draw(n)
                         for k, h in enumerate((before, after)))
        ranked, again = _by_count(first, rng), _by_count(second, rng)
        fresh = rng.permutation(np.setdiff1d(np.arange(table.rows), ranked))
        new = (rng.random(len(again)) < drift) | (np.arange(len(again)) >= len(ranked))
        if new.sum() > len(fresh):
            raise DataError(f"tables[{t}].rows", table.rows, f"must be at least {len(ranked) + int(new.sum())}, what these "
                            f"histograms and drift ask for in {queries} queries")
        to = np.empty(table.rows, np.int64)
        to[again[~new]] = ranked[np.flatnonzero(~new)]
        to[again[new]] = fresh[: new.sum()]
        bags[0].append((first, offsets))
        bags[1].append((to[second], offsets))
    empty = np.zeros((queries, 0), np.float32)
    return QueryBatch(empty, tuple(bags[0])), QueryBatch(empty, tuple(bags[1]))


def _by_count(stream: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Its distinct rows, those that come most often first; equal ones in random order."""
    rows, counts = np.unique(stream, return_counts=True)
    return rows[np.lexsort((rng.random(len(rows)), -counts))]


def compare_orders(config: DeviceConfig, spec: ModelSpec, learnt: QueryBatch, measured: Workload, batch: int, depth: int,
                   modelled: Modelled, together: int = 8, methods: Sequence[str] = METHODS,
                   progress: Callable[[str], None] = lambda text: None, more: DeviceConfig | None = None
                   ) -> tuple[dict[str, Any], dict[str, Placement]]:
    """(figures as plain data, mapping by method): for RM-SSD's striping and each of ``methods``, learnt from ``learnt``, the
    embedding stage of ``measured`` simulated on ``config`` as it is, and on ``more`` (the same device with a page window, a
    row cache or both) with ``modelled`` (key ``modelled_not_in_rtl``, or ``with_additions`` where nothing is modelled);
    ``progress`` before each step.

    ``die_balance``: the busiest die's cycles over the mean (1: all equally busy). ``cell_reads_ratio``: striping's cell
    reads per lookup over this order's, on the same device with the same ``modelled``. Raises what the simulator and
    :func:`~nearflash.placement.learn` raise.
    """
    tables = tables_of(spec)
    geometry = Geometry.of(config, tables)
    found: dict[str, Placement] = {}
    for method in methods:
        progress(f"learning: {method}")
        found[method] = Placement(learn(method, geometry, learnt.bags, together), {"method": method})
    orders = {BASELINE: Placement(striped(geometry)), **found}
    more = more or config
    devices: dict[str, tuple[DeviceConfig, Modelled | None]] = {"as_generated": (config, None)}
    if modelled.any or more != config:
        devices["modelled_not_in_rtl" if modelled.any else "with_additions"] = more, modelled
    rows: list[dict[str, Any]] = []
    for name, order in orders.items():
        row: dict[str, Any] = {"order": name}
        for key, (device, extra) in devices.items():
            progress(f"simulating: {name}")
            row[key] = _figures(device, spec, placed(measured, order, name), batch, depth, extra)
        rows.append(row)
    for key in devices:
        base = rows[0][key]
        for row in rows:
            row[key] |= {"cell_reads_ratio": base["cell_reads_per_lookup"] / max(row[key]["cell_reads_per_lookup"], 1e-9),
                         "queries_per_second_ratio": row[key]["queries_per_second"] / base["queries_per_second"]}
    unseen = [1 - float(np.isin(i, j).mean()) if len(i) else 0.0
              for (i, _), (j, _) in zip(measured.first(measured.queries), learnt.bags, strict=True)]
    return {"model": spec.name, "device": config.name, "channels": config.flash.channels,
            "dies_per_channel": config.flash.dies, "planes_per_die": config.flash.planes, "source": measured.source,
            "learnt_queries": len(learnt), "measured_queries": measured.queries, "batch": batch, "depth": depth,
            "together": together, "table_bytes": sum(t.pages(config) for t in tables) * config.flash.page_bytes,
            "page_window": more.lookup.page_window,
            "modelled": {**asdict(modelled), "cache_unit": "row" if more.row_cache.lines else "page",
                         "cache_bytes": more.row_cache.dram_bytes or modelled.cache_bytes(more)},
            "rows_never_seen_share_of_lookups": unseen, "orders": rows}, found


def _figures(config: DeviceConfig, spec: ModelSpec, work: Workload, batch: int, depth: int, modelled: Modelled | None
             ) -> dict[str, float]:
    timeline = load_tool("simulator")(config, tables_of(spec), work.commands(batch), None, depth, modelled)
    count, f = timeline.counters, config.flash
    busy = [count[name] for name in plane_counters(config)]
    reads = sum(count[f"channel{c}_reads_count"] for c in range(f.channels))
    cycles = int(timeline.completed.max() - timeline.submitted.min())
    lookups = max(1, count["lookups_count"])
    return {"cell_reads_per_lookup": reads / lookups, "die_balance": max(busy) / max(1.0, float(np.mean(busy))),
            "queries_per_second": work.queries * config.clock_mhz * 1e6 / cycles,
            "cache_hit_share": count.get("cache_hits_count", 0) / lookups}
