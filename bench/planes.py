"""What planes that read on their own are worth: the simulator with 1, 2 and 4 of them a die, and the RTL with 1 and 2.

Lookups alone, four channels of four dies (preset ``paper``): RMC1's at K = 0.3 on tables of 30 GB, and, where the data set
is in ``../shared/data/movietweetings``, its held-out queries. Beside them what ONFI's multi-plane read would be worth: it
reads pages of several planes in one array time if they have the same number in their blocks, so of the reads that wait for
a die the oldest takes along each other plane's first of that number (:func:`together`).

The RTL runs random lookups on the tests' small devices without planes and with two a die, which have different numbers of
tags; the simulator has both. The answers of one command are compared with the reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.data import QueryBatch
from nearflash.evaluate.device import tables_of
from nearflash.evaluate.workload import scaled, stored, synthetic
from nearflash.models import ModelSpec, model_spec
from nearflash_sim.small.device import PLANES as PLANED
from nearflash_sim.small.device import SMALL
from nearflash_sim.timing.tool import simulate
from nearflash_sim.timing.workload import locate, place

from .locality import DATASET, answered, held_out
from .lookup import device_config
from .report import Rows, console, progress, show_rows

__all__ = ["measure", "together"]

DIES, PLANES, BATCH, K = 4, (1, 2, 4), 8, 0.3
QUERIES = 480


def with_planes(config: DeviceConfig, planes: int) -> DeviceConfig:
    return replace(config, flash=replace(config.flash, planes=planes))


def together(config: DeviceConfig, blocks: np.ndarray) -> float:
    """Reads per array time of dies of which each takes along what ONFI's multi-plane read allows. ``blocks``: the pages of
    all reads in their order, of which as many are queued as there are tags, evenly over the dies."""
    f = config.flash
    dies = f.channels * f.dies
    die, rest = blocks % dies, blocks // dies
    plane, page = rest % f.planes, rest // f.planes % f.pages
    room, arrays = max(1, config.lookup.tags // dies), 0
    for d in range(dies):
        mine = np.flatnonzero(die == d)
        coming, queue = deque(zip(plane[mine].tolist(), page[mine].tolist(), strict=True)), []
        while coming or queue:
            while coming and len(queue) < room:
                queue.append(coming.popleft())
            arrays += 1
            first = queue[0]
            taken: dict[int, int] = {}
            for at, (p, number) in enumerate(queue):
                if number == first[1]:
                    taken.setdefault(p, at)
            queue = [q for at, q in enumerate(queue) if at not in taken.values()]
    return len(blocks) / arrays


def _streams(quick: bool) -> dict[str, tuple[ModelSpec, DeviceConfig, list[Any]]]:
    """By name: tables, a device that holds them, commands."""
    spec = scaled(model_spec("rmc1"), 30e9)
    base = device_config(DIES)
    large = replace(base, flash=replace(base.flash, blocks=65536 // DIES // 4))
    n = QUERIES // (4 if quick else 1)
    out = {f"RMC1, K = {K:g}": (spec, large, list(synthetic(spec, n, K).commands(BATCH)))}
    if DATASET.is_dir():
        shipped, test = held_out()
        queries: QueryBatch = test[:500] if quick else test
        out["MovieTweetings"] = (shipped, base, list(stored("", queries).commands(BATCH)))
    else:
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
    return out


def _blocks(config: DeviceConfig, spec: ModelSpec, commands: Iterable[Any]) -> np.ndarray:
    """Of all lookups, sample after sample."""
    tables, out = place(config, tables_of(spec)), []
    for bags in commands:
        at = np.concatenate([locate(config, t, rows) for t, (rows, _) in zip(tables, bags, strict=True)])
        sample = np.concatenate([np.searchsorted(first, np.arange(len(rows)), side="right") for rows, first in bags])
        out.append(at[np.argsort(sample, kind="stable")])
    return np.concatenate(out)


def measure(quick: bool = False) -> Rows:
    out = _simulated(quick)
    show_rows(f"planes with reads of their own; preset paper, {DIES} dies a channel, simulated", (
        ("workload", "workload", ""), ("planes", "planes a die", ""), ("queries", "queries", ","), ("cycles", "cycles", ","),
        ("queries_per_second", "queries/s", ",.0f"), ("speedup_ratio", "times one plane", ".2f"),
        ("ceiling_share", "share of ceiling", ".1%"), ("multi_plane_ratio", "reads per tR if multi-plane", ".2f")), out)
    rtl = _measured(quick)
    show_rows("the RTL of the tests' small device: two channels of two dies", (
        ("planes", "planes a die", ""), ("tags", "tags", ""), ("queries", "queries", ","), ("cycles", "cycles", ","),
        ("queries_per_second", "queries/s", ",.0f"), ("simulated_cycles", "simulator's cycles", ","),
        ("total_error", "off", ".3%"), ("equal_tags_cycles", f"simulator's, {PLANED.lookup.tags} tags", ","),
        ("wrong_elements", "wrong elements", "")), rtl)
    return out + rtl


def _simulated(quick: bool) -> Rows:
    out: Rows = []
    streams = _streams(quick)
    with progress() as bar:
        task = bar.add_task("planes, simulated", total=len(PLANES) * len(streams), note="")
        for name, (spec, base, commands) in streams.items():
            queries = sum(len(bags[0][1]) for bags in commands)
            first = 0
            for planes in PLANES:
                bar.update(task, advance=1, note=f"{name}, {planes} planes")
                config = with_planes(base, planes)
                run = simulate(config, tables_of(spec), commands, None, config.host.infer_depth)
                cycles = int(run.completed.max())
                first = first or cycles
                ceiling = sum(len(rows) * config.ceiling_cycles_per_lookup(t.stride_beats(config) * config.beat_bytes)
                              for bags in commands for t, (rows, _) in zip(tables_of(spec), bags, strict=True))
                out.append({"workload": name, "planes": planes, "queries": queries, "cycles": cycles,
                            "queries_per_second": queries * config.clock_mhz * 1e6 / cycles,
                            "speedup_ratio": first / cycles, "ceiling_share": ceiling / cycles,
                            "multi_plane_ratio": together(config, _blocks(config, spec, commands))})
    return out


def _measured(quick: bool) -> Rows:
    """Random lookups on the devices that tests have: without planes and with two a die."""
    rng = np.random.default_rng(0)
    shapes, each = [(4096, 8)] * 2, 32
    commands = [[(rng.integers(0, rows, BATCH * each), np.arange(BATCH) * each) for rows, _ in shapes]
                for _ in range(4 if quick else 16)]
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("planes, RTL", total=2, note="")
        for config in (SMALL, PLANED):
            bar.update(task, note=f"building the device {config.name}")
            with runtime.open("sim", config=config) as device:
                bar.update(task, advance=1, note=config.name)
                out.append({"planes": config.flash.planes, "tags": config.lookup.tags} | answered(device, shapes, commands))
            equal = replace(config, lookup=PLANED.lookup)
            run = simulate(equal, [TableSpec(*shape) for shape in shapes], commands, None, equal.host.infer_depth)
            out[-1]["equal_tags_cycles"] = int(run.completed.max())
    return out
