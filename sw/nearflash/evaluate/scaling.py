"""The embedding stage over several devices: each simulated in time, the host's links and its additions as costs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import ceil
from typing import Any

import numpy as np

from ..contract import DataError, DeviceConfig
from ..contract.modelled import Modelled
from ..contract.registers import plane_counters
from ..models import ModelSpec
from ..tools import load_tool
from .costs import ScaleCosts
from .sharding import Heat, ShardPlan, capacity_pages, plan_shards
from .workload import Bags, Workload

__all__ = ["LEARNT_SHARE", "evaluate_scaling", "learn"]

LEARNT_SHARE = 0.25  # of the queries, the first ones: what the planner knows of the rows' heat


def learn(spec: ModelSpec, work: Workload) -> tuple[list[Heat], int]:
    """(the tables' heat in the first :data:`LEARNT_SHARE` of the queries, how many those are). Raises
    :class:`~nearflash.contract.DataError` where none would be left to measure on."""
    queries = max(1, int(work.queries * LEARNT_SHARE))
    if queries >= work.queries:
        raise DataError("queries", work.queries, "must be at least 2: the first ones are what tables are placed by")
    return [Heat.of(t.rows, indices, queries)
            for t, (indices, _) in zip(spec.tables, work.first(queries), strict=True)], queries


def evaluate_scaling(base: DeviceConfig, spec: ModelSpec, work: Workload, devices: Sequence[int], batch: int, depth: int,
                     costs: ScaleCosts, device_gb: float | None = None, modelled: Modelled | None = None,
                     progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Figures of LOOKUPs of ``batch`` queries on each number of ``devices``, as plain data with the unit in every key.

    Tables are placed by the heat of the first queries (:func:`learn`); the others are measured, the last of them only if
    they fill a batch. Every batch goes to all devices that hold anything, at most ``depth`` batches at once; it is complete
    when the slowest device's results are in host memory and partial sums are added. Devices are alike: ``base``, without an
    MLP, with as much flash as the fullest needs, at most ``device_gb`` GB (None: the largest of that shape).

    Of the links, what a device's own bus to the host doesn't hide counts: a device reads its queries twice and writes its
    results at its bus's rate, and both also pass its link and then the host's, one command after the other. Raises
    :class:`~nearflash.contract.DataError`, also for fewer queries than make a batch.
    """
    heats, learnt = learn(spec, work)
    if work.queries - learnt < batch:
        raise DataError("queries", work.queries, f"must be more: {learnt} are learnt from, the others must fill a batch of "
                        f"{batch}")
    capacity = capacity_pages(base, device_gb)
    rows = []
    for n in devices:
        plan = plan_shards(spec, base, heats, n, capacity)
        progress(f"{n} devices" if n > 1 else "1 device")
        rows.append(_measure(_sized(base, plan), plan, work, learnt, batch, depth, costs, modelled))
    first = rows[0]
    for row in rows:
        row["speedup_ratio"] = row["queries_per_second"] / first["queries_per_second"]
        row["efficiency_share"] = row["speedup_ratio"] * first["devices"] / row["devices"]
    useful = sum(t.rows * t.row_format.row_bytes(t.dim) for t in spec.tables)
    return {"model": spec.name, "device": base.name, "channels": base.flash.channels, "dies_per_channel": base.flash.dies,
            "planes_per_die": base.flash.planes, "clock_mhz": base.clock_mhz, "source": work.source, "table_bytes": useful,
            "learnt_queries": learnt, "batch": batch, "depth": depth,
            "device_capacity_bytes": capacity * base.flash.page_bytes, "costs": costs.to_dict(), "scaling": rows,
            **({"modelled_not_in_rtl": asdict(modelled)} if modelled is not None and modelled.any else {})}


def _sized(base: DeviceConfig, plan: ShardPlan) -> DeviceConfig:
    """``base`` with room for what the fullest device holds."""
    lanes, lk = base.lookup.lanes, base.lookup
    dims = [sum(-(-plan.spec.tables[p.table].dim // lanes) * lanes for p in plan.on(d)) for d in plan.used]
    pages = max(sum(t.pages(base) for t in plan.tables(d)) for d in plan.used)
    lookup = replace(lk, max_dim=max(lk.max_dim, *(t.dim for t in plan.spec.tables)),
                     max_bag=max(lk.max_bag, *(t.lookups for t in plan.spec.tables)),
                     accumulators=max(lk.accumulators, 1 << (max(dims) - 1).bit_length()))
    config = replace(base, lookup=lookup, mlp=replace(base.mlp, graph=()))
    while config.lbas < pages:
        config = replace(config, flash=replace(config.flash, blocks=config.flash.blocks * 2))
    return config


class _Link:
    """Bytes in order, so many a cycle."""

    def __init__(self, gb_per_s: float, config: DeviceConfig):
        self.rate, self.free, self.busy = gb_per_s * 1e3 / config.clock_mhz, 0.0, 0.0

    def through(self, first: float, last: float, nbytes: int) -> float:
        """When ``nbytes`` are through that come from cycle ``first`` to ``last``."""
        time = nbytes / self.rate
        self.free = max(last, max(first, self.free) + time)
        self.busy += time
        return self.free


def _measure(config: DeviceConfig, plan: ShardPlan, work: Workload, learnt: int, batch: int, depth: int, costs: ScaleCosts,
             modelled: Modelled | None) -> dict[str, Any]:
    live_device, used = load_tool("live-device"), plan.used
    live = [live_device(config, plan.tables(d), None, depth, modelled) for d in used]
    bus = config.beat_bytes  # bytes a cycle between a device and its link
    links = [[_Link(costs.device_link_gb_per_s, config) for _ in used] for _ in "io"]
    host = [_Link(costs.host_link_gb_per_s, config) for _ in "io"]
    adder = _Link(costs.combine_gb_per_s, config)
    spec = plan.spec
    dims = [sum(spec.tables[p.table].dim for p in plan.on(d)) for d in used]
    partial = sum(spec.tables[p.table].dim for p in plan.pieces if plan.parts(p.table) > 1)
    submit = costs.submit_us * config.clock_mhz
    ended: list[deque[int]] = [deque() for _ in used]
    begun: list[float] = []
    done: list[float] = []
    waits = np.zeros(len(used))  # of each device, batches in which it was the last
    lookups = np.zeros(len(used), np.int64)
    sent_until = 0.0  # the host's thread submits one command after the other

    def land(number: int) -> None:
        """Batch ``number`` comes back."""
        for d, device in enumerate(live):
            if not ended[d]:
                ended[d].extend(device.wait(len(begun) - number - 1).tolist())
        at = [e.popleft() for e in ended]
        last = 0.0
        for d in sorted(range(len(used)), key=lambda d: (at[d], d)):
            nbytes = batch * dims[d] * 4
            here = links[1][d].through(at[d] - nbytes / bus, at[d], nbytes)
            last = max(last, host[1].through(here - nbytes / min(bus, links[1][d].rate), here, nbytes))
        waits[int(np.argmax(at))] += 1
        done.append(adder.through(last, last, batch * partial * 4))

    for bags in _batches(work, learnt, batch):
        number = len(begun)
        if number >= depth:
            land(number - depth)
        start = max(done[number - depth] if number >= depth else 0.0, sent_until)
        begun.append(start)
        for d, mine in enumerate(plan.split(bags)):
            sent_until = (sent_until if d else start) + submit
            words = sum(len(offsets) + len(indices) for indices, offsets in mine)
            lookups[d] += sum(len(indices) for indices, _ in mine)
            nbytes = 2 * 4 * words  # checked, then executed
            last = host[0].through(sent_until, sent_until + nbytes / bus, nbytes)
            last = links[0][d].through(last - nbytes / min(bus, host[0].rate), last, nbytes)
            live[d].send(mine, ceil(last - nbytes / bus))
    while len(done) < len(begun):
        land(len(done))
    us = 1 / config.clock_mhz
    latency = (np.array(done) - np.array(begun)) * us
    cycles, queries = done[-1] - begun[0], batch * len(begun)
    busy = np.array([_busiest(config, device.counters()) for device in live]) / cycles
    sizes = [sum(p.pages for p in plan.on(d)) * config.flash.page_bytes for d in used]
    return {
        "devices": plan.devices, "devices_used": len(used), "pieces_count": len(plan.pieces),
        "tables_in_parts_count": sum(plan.parts(t) > 1 for t in range(len(spec.tables))), "queries": queries,
        "lookups": int(lookups.sum()), "queries_per_second": queries / (cycles * us * 1e-6),
        "lookups_per_second": int(lookups.sum()) / (cycles * us * 1e-6), "latency_mean_us": float(latency.mean()),
        "latency_p50_us": float(np.percentile(latency, 50)), "latency_p99_us": float(np.percentile(latency, 99)),
        "lookup_balance": float(lookups.sum() / plan.devices / max(1, lookups.max())),
        "flash_balance": float(busy.sum() / plan.devices / max(1e-12, busy.max())), "flash_busy_share": busy.tolist(),
        "slowest_share": (waits / len(begun)).tolist(), "device_bytes": sizes,
        "lookups_share": (lookups / max(1, lookups.sum())).tolist(),
        "device_link_busy_share": max(x.busy for side in links for x in side) / cycles,
        "host_link_busy_share": max(x.busy for x in host) / cycles, "combine_busy_share": adder.busy / cycles,
        "pieces": [{"table": p.table, "first_row": p.first, "rows": p.rows, "device": p.device,
                    "planned_cycles_per_query": p.cycles} for p in plan.pieces]}


def _busiest(config: DeviceConfig, count: dict[str, int]) -> int:
    """Cycles of the busiest die or channel bus."""
    return max(count[name] for name in (*(f"channel{c}_bus_busy" for c in range(config.flash.channels)),
                                        *plane_counters(config)))


def _batches(work: Workload, learnt: int, batch: int) -> list[Bags]:
    """Whole batches of the queries after the first ``learnt``."""
    bags = work.first(work.queries)
    out = []
    for start in range(learnt, work.queries - batch + 1, batch):
        cut = []
        for indices, offsets in bags:
            ends = np.append(offsets, len(indices))
            low, high = ends[start], ends[start + batch]
            cut.append((indices[low:high], offsets[start : start + batch] - low))
        out.append(tuple(cut))
    return out
