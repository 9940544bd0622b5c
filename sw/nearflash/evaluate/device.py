"""One device under one workload, simulated in time: how fast, where the time goes, how busy what is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..compiler import embedding_cycles, stage_cycles
from ..compiler.timing import inference_cycles
from ..contract import DataError, DeviceConfig, RowCacheConfig, TableSpec
from ..contract.modelled import Modelled
from ..contract.registers import plane_counters
from ..models import ModelSpec
from ..timeline import MOST_SLICES, Slice
from ..tools import load_tool
from .block_io import BlockIo
from .workload import Bags, Workload

__all__ = ["evaluate_device", "tables_of", "widest_row"]

#: Figures of the device without what is modelled, which a result has beside its own.
COMPARED = ("queries_per_second", "latency_mean_us", "latency_p50_us", "latency_p99_us", "flash_reads_per_lookup",
            "flash_ceiling_share", "die_busy_share")


def tables_of(spec: ModelSpec) -> list[TableSpec]:
    """The model's tables as a device has them, without a place."""
    return [TableSpec(t.rows, t.dim, t.row_format, t.pool_mode) for t in spec.tables]


def widest_row(config: DeviceConfig, spec: ModelSpec) -> int:
    """Bytes that the longest of the model's rows takes on flash."""
    return max(t.stride_beats(config) for t in tables_of(spec)) * config.beat_bytes


def evaluate_device(config: DeviceConfig, spec: ModelSpec, workload: Workload, batch: int, depth: int, infer: bool = True,
                    progress: Callable[[int], None] = lambda queries: None, modelled: Modelled | None = None,
                    slices: list[Slice] | None = None, block_io: BlockIo | None = None) -> dict[str, Any]:
    """Figures of ``config`` answering ``workload`` with ``batch`` queries a command and ``depth`` commands in flight, as
    plain data with the unit in every key. ``infer`` False: the embedding stage alone (LOOKUP). ``progress(n)``: n more
    queries were handed to the simulator. ``modelled``: what is simulated beyond the gateware; the result's key
    ``modelled_not_in_rtl`` says what, and ``without_modelled`` what the device is without it. Of a device with a row cache
    ``row_cache`` says which, and ``without_row_cache`` what the device is without that. ``slices``: a list that gets
    the run's timeline, of at most :data:`~nearflash.timeline.MOST_SLICES`. ``block_io``: requests meanwhile; the result's
    ``block_io`` says how they fared, ``without_block_io`` how the queries do without.

    *Latency* is a command's, from the write to its doorbell to the acknowledgement of its completion, counted once for each
    of its queries. *Stages in steady state* overlap: each figure is the time that one query keeps that part of the device;
    the largest limits the throughput. *Stages of a query alone* are exposed times and add up to its latency: the whole
    command less one whose bags are empty (lookups, flash, pooling), the MLP engine alone
    (:mod:`nearflash.compiler.timing`), and what is left (host interface).

    Raises :class:`~nearflash.contract.DataError`, and :class:`~nearflash.contract.NearflashError` without the simulator.
    """
    f = config.flash
    if infer and not config.mlp.graph:
        raise DataError("mlp.graph", "empty", "must be the model's: a device without an MLP answers lookups only")
    simulate = load_tool("simulator")
    tables = tables_of(spec)
    dense = spec.dense if infer else None
    seen = _Seen(workload, batch, progress)
    start = time.process_time()
    most, blocks = 0 if slices is None else MOST_SLICES, None if block_io is None else block_io.load
    timeline = simulate(config, tables, seen.commands(), dense, depth, modelled, most, blocks)
    if slices is not None:
        slices += timeline.slices
    seconds = time.process_time() - start
    beyond: dict[str, Any] = {}
    if modelled is not None and modelled.any:
        plain = evaluate_device(config, spec, workload, batch, depth, infer, block_io=block_io)
        beyond = {"modelled_not_in_rtl": {**asdict(modelled), "cache_bytes": modelled.cache_bytes(config)},
                  "without_modelled": {k: plain[k] for k in COMPARED}}
    if config.row_cache.lines:
        plain = evaluate_device(replace(config, row_cache=RowCacheConfig()), spec, workload, batch, depth, infer,
                                block_io=block_io)
        beyond |= {"row_cache": {**asdict(config.row_cache), "dram_bytes": config.row_cache.dram_bytes},
                   "without_row_cache": {k: plain[k] for k in COMPARED}}
    if block_io is not None:
        plain = evaluate_device(config, spec, workload, batch, depth, infer, modelled=modelled)
        beyond |= {"block_io": block_io.figures(config, timeline.block_submitted, timeline.block_completed),
                   "without_block_io": {k: plain[k] for k in COMPARED}}
    if "cache_hits_count" in timeline.counters:
        beyond["cache_hit_share"] = timeline.counters["cache_hits_count"] / max(1, int(sum(seen.lookups)))

    us = 1 / config.clock_mhz
    count, n = timeline.counters, workload.queries
    cycles = int(timeline.completed.max() - timeline.submitted.min())
    latency = np.repeat(timeline.completed - timeline.submitted, seen.sizes) * us
    channels = [count[f"channel{c}_bus_busy"] for c in range(f.channels)]
    dies = [count[name] for name in plane_counters(config)]
    reads = sum(count[f"channel{c}_reads_count"] for c in range(f.channels)) - timeline.block_pages
    lookups = int(sum(seen.lookups))
    rows = np.array([t.format.row_bytes(t.dim) for t in tables])
    moved = np.array([t.stride_beats(config) * config.beat_bytes for t in tables])
    ceiling = sum(k * config.ceiling_cycles_per_lookup(int(b)) for k, b in zip(seen.lookups, moved, strict=True))
    useful = int(np.dot(seen.lookups, rows))
    stages = {"busiest_die_us": max(dies) / n * us, "busiest_channel_bus_us": max(channels) / n * us}
    if infer:
        stages |= {f"{name}_mlp_us": stage_cycles(config.mlp.graph, name[:3]) * us for name in ("bottom", "top")}
    result = {
        "model": spec.name, "device": config.name, "design_id": f"{config.design_id:#010x}", "source": workload.source,
        "command": "INFER" if infer else "LOOKUP", "clock_mhz": config.clock_mhz, "channels": f.channels,
        "dies_per_channel": f.dies, "planes_per_die": f.planes, "page_window": config.lookup.page_window,
        "table_bytes": int(sum(t.rows * b for t, b in zip(tables, rows, strict=True))),
        "queries": n, "batch": batch, "depth": depth, "lookups": lookups, "cycles": cycles,
        "queries_per_second": n / (cycles * us * 1e-6), "lookups_per_second": lookups / (cycles * us * 1e-6),
        "latency_mean_us": float(latency.mean()), "latency_p50_us": float(np.percentile(latency, 50)),
        "latency_p99_us": float(np.percentile(latency, 99)),
        "query_alone": _alone(config, spec, workload, dense, modelled), "stages_per_query": stages,
        "flash_reads_count": reads, "flash_reads_per_lookup": reads / max(1, lookups),
        "read_amplification_cells": reads * f.page_bytes / max(1, useful),
        "read_amplification_bus": float(np.dot(seen.lookups, moved)) / max(1, useful),
        "host_bytes_in_per_query": _words(spec, dense, lookups / n) * 4,
        "host_bytes_out_per_query": (spec.outputs if infer else sum(t.dim for t in tables)) * 4,
        "map_hit_share": 1 - count["map_misses_count"] / max(1, lookups),
        "repeats_in_command_share": 1 - seen.distinct / max(1, lookups),
        "channel_busy_share": [c / cycles for c in channels], "die_busy_share": [d / cycles for d in dies],
        "flash_ceiling_queries_per_second": config.clock_mhz * 1e6 * n / ceiling if ceiling else None,
        "flash_ceiling_share": ceiling / cycles, "balanced_embedding_us": embedding_cycles(spec, config) * us,
        "simulated_lookups_per_cpu_second": lookups / max(seconds, 1e-9), **beyond,
    }
    if "without_modelled" in beyond:
        result["queries_per_second_ratio"] = result["queries_per_second"] / beyond["without_modelled"]["queries_per_second"]
    return result


def _words(spec: ModelSpec, dense: int | None, lookups: float) -> float:
    """32-bit words of a query's stream: features, a length for each bag, indices."""
    return (dense or 0) + len(spec.tables) + lookups


def _alone(config: DeviceConfig, spec: ModelSpec, workload: Workload, dense: int | None, modelled: Modelled | None
           ) -> dict[str, float]:
    """Latency of the first query on the idle device, in us, and what it consists of.

    The MLP alone is in closed form where its weights are on chip. Where they are streamed, it's what such a query takes with
    empty bags, without the host interface of the same device with its weights on chip."""
    simulate, us = load_tool("simulator"), 1 / config.clock_mhz
    first = workload.first(1)
    nothing = tuple((indices[:0], np.zeros_like(offsets)) for indices, offsets in first)

    def cycles(device: DeviceConfig, bags: Bags) -> int:
        return int(simulate(device, tables_of(spec), [bags], dense, 1, modelled).latency[0])

    total, empty, mlp = cycles(config, first), cycles(config, nothing), 0
    if dense is not None:
        graph = tuple(replace(n, weights="onchip") for n in config.mlp.graph)
        on_chip = replace(config, mlp=replace(config.mlp, graph=graph))
        mlp = inference_cycles(on_chip, [t.dim for t in spec.tables]).busy
        if on_chip != config:
            mlp += empty - cycles(on_chip, nothing)
    return {"latency_us": total * us, "lookups_us": (total - empty) * us, "mlp_us": mlp * us, "host_us": (empty - mlp) * us}


class _Seen:
    """Counts what passes on its way to the simulator, of which nothing is kept but the commands' sizes."""

    def __init__(self, workload: Workload, batch: int, progress: Callable[[int], None]):
        self.workload, self.batch, self.progress = workload, batch, progress
        self.sizes: list[int] = []
        self.distinct = 0
        self.lookups: list[int] = []

    def commands(self) -> Iterator[Bags]:
        for bags in self.workload.commands(self.batch):
            size = len(bags[0][1])
            self.sizes.append(size)
            self.distinct += sum(len(np.unique(indices)) for indices, _ in bags)
            self.lookups = [a + len(b[0]) for a, b in zip(self.lookups or [0] * len(bags), bags, strict=True)]
            self.progress(size)
            yield bags
