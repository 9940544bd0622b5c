"""The simulator of the device's time against the RTL: devices times workloads.

Each case runs the same commands on the Verilated device and in :mod:`nearflash_sim.timing`, both with an empty map cache,
``depth`` of them in flight; the last one beside READs of block I/O. Compared: the cycles to the last command's completion,
the commands' latencies (median, 99th percentile), what the device's counters say of dies, buses, flash reads and the map,
and the READs' mean latency. What the RTL took is published or kept in the cache (:mod:`.timing_grid_rtl`), so that a grid
that was interrupted goes on, and a device whose Verilog hasn't changed needs no RTL.

``--quick``: the devices that the test suite builds anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from nearflash.compiler import compile_device
from nearflash.contract import DeviceConfig, RowFormat, TableSpec
from nearflash.contract.table import Extent, PoolMode
from nearflash.data import BlockLoad, StackDistance
from nearflash.models import ModelSpec, RecModel, TableShape, model_spec
from nearflash.quantize import QuantizeOptions, compile_model
from nearflash.runtime import Device
from nearflash_sim.backend import SimBackend
from nearflash_sim.small.device import SMALL, load, make_table, small_config
from nearflash_sim.small.models import CASES as SMALL_MODELS
from nearflash_sim.small.models import configured
from nearflash_sim.timing.rtl import Query
from nearflash_sim.timing.rtl import measure as measure_rtl
from nearflash_sim.timing.simulator import Simulator, Timeline
from nearflash_sim.timing.workload import Batch

from .report import Rows, progress, show_rows
from .timing_grid_rtl import Results

__all__ = ["CASES", "DEVICES", "Case", "GridDevice", "measure"]

TIMES = ("submitted", "completed", "block_submitted", "block_completed")
BLOCK_READS = 20_000
ROWS = 512  # of the published models' tables, at most
LIMITS = {"total_error": 0.01, "p50_error": 0.02, "p99_error": 0.02, "stage_error": 0.02}


@dataclass(frozen=True)
class Case:
    """``samples`` a command, ``commands`` of them, ``depth`` in flight, rows by ``locality`` (K; None: uniform random), bags
    as long as the table's ("full"), of any length up to that ("ragged"), or of one lookup or none ("short")."""

    samples: int
    commands: int
    depth: int
    locality: float | None
    bags: str
    block_depth: int = 0  #: READs of a logical block in flight meanwhile


CASES = (
    Case(1, 6, 1, None, "ragged"), Case(1, 8, 4, None, "full"), Case(2, 6, 2, 0.3, "ragged"), Case(4, 5, 1, None, "full"),
    Case(4, 5, 4, 0.3, "ragged"), Case(8, 4, 2, 2.0, "full"), Case(13, 3, 2, None, "ragged"), Case(16, 3, 4, 0.3, "full"),
    Case(24, 2, 4, None, "short"), Case(32, 2, 2, 2.0, "ragged"), Case(8, 4, 2, 0.3, "full", block_depth=4),
)


@dataclass(frozen=True)
class GridDevice:
    """A device and what its tables hold: those of ``model``, which takes INFERs, or ``tables``, which take LOOKUPs.
    ``lookups``: of a case at most; it has fewer commands, then fewer samples, for that."""

    name: str
    config: Callable[[], DeviceConfig]
    model: ModelSpec | None = None
    tables: tuple[TableShape, ...] = ()
    lookups: int = 6000
    quick: bool = field(default=False, compare=False)

    @property
    def shapes(self) -> tuple[TableShape, ...]:
        return self.model.tables if self.model else self.tables


MIXED = (TableShape(50, 8, 12), TableShape(33, 8, 7, "mean", "fp16"), TableShape(40, 8, 9, "sum", "int8"))


def paper(dies: int) -> DeviceConfig:
    return DeviceConfig.preset("paper", dies=dies)


def vectors(name: str, config: Callable[[], DeviceConfig], dim: int, bag: int, tables: int = 1, **kw: Any) -> GridDevice:
    return GridDevice(name, config, tables=(TableShape(ROWS, dim, bag),) * tables, **kw)


def published(name: str, lookups: int) -> GridDevice:
    """The device of the tests of the paper's models; of rmc3 and wnd the largest layer streams its weights."""
    spec = model_spec(name, ROWS)
    return GridDevice(f"{name}, paper 4x1", lambda: compile_device(spec, paper(1)), spec, lookups=lookups)


DEVICES = (
    GridDevice("tiny 2x2", lambda: SMALL, tables=MIXED, quick=True),
    *(GridDevice(f"{name}, tiny {c.flash[0]}x{c.flash[1]}", partial(configured, name), c.spec, quick=True)
      for name, c in SMALL_MODELS.items()),
    *(GridDevice(f"tiny {channels}x{dies}", partial(small_config, channels=channels, dies=dies), tables=MIXED)
      for channels, dies in ((1, 1), (1, 4), (2, 1), (4, 1), (4, 2), (4, 4))),
    vectors("128 B, paper 4x1", partial(paper, 1), 32, 40, tables=4),
    vectors("4096 B, paper 4x2", partial(paper, 2), 1024, 40),
    vectors("256 B, paper 4x4", partial(paper, 4), 64, 40, tables=2),
    *(published(name, lookups)
      for name, lookups in (("rmc1", 6000), ("rmc2", 8000), ("rmc3", 3000), ("ncf", 2000), ("wnd", 2000))),
)


def bags_of(shapes: Sequence[TableShape], case: Case, seed: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Of each command."""
    rng = np.random.default_rng(seed)
    sources = [partial(rng.integers, 0, t.rows) if case.locality is None
               else StackDistance(t.rows, case.locality, seed + k).draw for k, t in enumerate(shapes)]
    out = []
    for _ in range(case.commands):
        command = []
        for t, source in zip(shapes, sources, strict=True):
            most = {"full": t.lookups, "ragged": t.lookups, "short": 1}[case.bags]
            lengths = np.full(case.samples, most) if case.bags == "full" else rng.integers(0, most + 1, case.samples)
            command.append((source(int(lengths.sum())), np.cumsum(lengths) - lengths))
        out.append(command)
    return out


def fitted(case: Case, device: GridDevice) -> Case:
    """The case with no more lookups than the device's cases may have."""
    per_sample = sum(t.lookups for t in device.shapes)
    samples = max(1, min(case.samples, device.lookups // per_sample))
    return replace(case, samples=samples, commands=max(1, min(case.commands, device.lookups // (samples * per_sample))))


def queries_of(device: GridDevice, case: Case, seed: int) -> list[Query]:
    rng = np.random.default_rng(seed)
    dense = [rng.standard_normal((case.samples, device.model.dense)).astype(np.float32) if device.model else None
             for _ in range(case.commands)]
    return [Query(b, d) for b, d in zip(bags_of(device.shapes, case, seed), dense, strict=True)]


def opened(device: GridDevice, config: DeviceConfig) -> Device:
    """The Verilated device with its tables."""
    out = Device(SimBackend(config))
    rng = np.random.default_rng(1)
    if device.model:
        calibration = [(q.dense, q.bags) for q in queries_of(device, Case(16, 2, 1, None, "ragged"), 3)]
        out.load(compile_model(RecModel(device.model, seed=0), config, calibration, QuantizeOptions()), preload=True)
    else:
        load(out, [make_table(rng, config, t.rows, t.dim, RowFormat[t.format.upper()], PoolMode[t.mode.upper()], bag=64)
                   for t in device.tables], preload=True)
    return out


def as_json(timeline: Timeline, tables: Sequence[TableSpec]) -> dict[str, Any]:
    times = {name: getattr(timeline, name).tolist() for name in TIMES}
    return {**times, "counters": timeline.counters, "tables": [asdict(t) for t in tables]}


def from_json(given: dict[str, Any]) -> tuple[Timeline, list[TableSpec]]:
    tables = [TableSpec(**{**t, "format": RowFormat(t["format"]), "mode": PoolMode(t["mode"]),
                           "extents": tuple(Extent(**e) for e in t["extents"])}) for t in given["tables"]]
    times = {name: np.array(given[name], np.int64) for name in TIMES}
    return Timeline(times["submitted"], times["completed"], given["counters"], block_submitted=times["block_submitted"],
                    block_completed=times["block_completed"]), tables


def error(simulated: float, rtl: float) -> float:
    """Relative; of two zeros, 0."""
    return abs(simulated - rtl) / rtl if rtl else float(simulated != rtl)


def compare(rtl: Timeline, simulated: Timeline) -> dict[str, Any]:
    """Errors, and the stage that is off most."""
    groups = {"dies busy": "_die", "buses busy": "_bus_busy", "flash reads": "_reads", "map misses": "map_misses"}
    off = {name: error(*(float(sum(v for k, v in t.counters.items() if key in k and k in simulated.counters))
                         for t in (simulated, rtl))) for name, key in groups.items()}
    worst = max(off, key=lambda name: off[name])
    out = {"rtl_cycles": int(rtl.completed[-1]), "simulated_cycles": int(simulated.completed[-1]),
           "total_error": error(simulated.completed[-1], rtl.completed[-1])}
    for q in (50, 99):
        out[f"p{q}_error"] = error(*(float(np.percentile(t.latency, q)) for t in (simulated, rtl)))
    reads = [float((t.block_completed - t.block_submitted).mean()) if len(t.block_submitted) else 0.0
             for t in (simulated, rtl)]
    return {**out, "stage_error": off[worst], "stage": worst if off[worst] else "none", "block_error": error(*reads)}


def blocks_of(case: Case, tables: Sequence[TableSpec], seed: int) -> BlockLoad:
    """READs of the tables' pages at random, more than the commands take."""
    pages = np.concatenate([np.arange(e.lba, e.lba + e.pages) for t in tables for e in t.extents])
    first = np.random.default_rng(seed).choice(pages, BLOCK_READS if case.block_depth else 0)
    return BlockLoad(first, np.ones(len(first), np.int64), max(1, case.block_depth))


def run_device(device: GridDevice, note: Callable[[str], None], done: Callable[[], None], cases: Sequence[Case] = CASES
               ) -> Rows:
    """Those of :data:`CASES`, which say how they are drawn."""
    config = device.config()
    results = Results(device.name, config)
    rtl_device, out = None, []

    def measured(case: Case, queries: list[Query], seed: int) -> dict[str, Any]:
        nonlocal rtl_device
        if rtl_device is None:
            note(f"{device.name}: building")
            rtl_device = opened(device, config)
        note(f"{device.name}: {case}")
        rtl_device.driver.enable()
        placed = [rtl_device.tables[t] for t in range(len(device.shapes))]
        return as_json(measure_rtl(rtl_device, queries, case.depth, blocks_of(case, placed, seed)), placed)

    try:
        for given in cases:
            seed, case = CASES.index(given), fitted(given, device)
            queries = queries_of(device, case, seed)
            key = results.key(repr(device.shapes), repr(case), str(seed))
            rtl, tables = from_json(results.of(key, partial(measured, case, queries, seed)))
            batches = [Batch.of(q.bags, q.dense is not None, 0 if q.dense is None else q.dense.shape[1]) for q in queries]
            simulator = Simulator(config, tables, case.depth, blocks=blocks_of(case, tables, seed))
            out.append({"device": device.name, "channels": config.flash.channels, "dies": config.flash.dies, **asdict(case),
                        **compare(rtl, simulator.run(batches))})
            done()
    finally:
        if rtl_device is not None:
            rtl_device.close()
    return out


def by_device(rows: Rows) -> Rows:
    """The largest errors of each device's cases."""
    out = []
    for name in dict.fromkeys(r["device"] for r in rows):
        mine = [r for r in rows if r["device"] == name]
        out.append({"device": name, "cases_count": len(mine), "exact_count": sum(r["total_error"] == 0 for r in mine),
                    "mean_error": float(np.mean([r["total_error"] for r in mine])),
                    **{k: max(r[k] for r in mine) for k in (*LIMITS, "block_error")}})
    return out


def measure(quick: bool = False) -> Rows:
    devices = [d for d in DEVICES if d.quick or not quick]
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("timing_grid", total=len(devices) * len(CASES), note="")
        for device in devices:
            out += run_device(device, lambda text: bar.update(task, note=text), lambda: bar.advance(task))
    totals = [r["total_error"] for r in out]
    worst = max(out, key=lambda r: r["total_error"])
    missed = sum(any(r[k] > limit for k, limit in LIMITS.items()) for r in out)
    show_rows("Simulated against RTL cycles", (
        ("device", "device", ""), ("cases_count", "cases", ","), ("exact_count", "to the cycle", ","),
        ("mean_error", "mean error", ".4%"), ("total_error", "largest", ".4%"), ("p50_error", "of p50", ".3%"),
        ("p99_error", "of p99", ".3%"), ("stage_error", "of a stage", ".3%"),
        ("block_error", "of READs", ".3%"),
    ), by_device(out), (
        f"total cycles of {len(out)} cases: mean error {np.mean(totals):.4%}, largest {max(totals):.4%} ({worst['device']}, "
        f"batch {worst['samples']}, {worst['depth']} in flight, {worst['bags']} bags; there, most off is: {worst['stage']})",
        f"cases beyond 1 % in total, or 2 % in a latency or a stage: {missed}",
    ))
    return out
