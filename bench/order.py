"""What it is worth that a channel's bus goes to the die that most lookups wait for (``lookup.longest_queue_first``).

By the simulator, preset ``paper``: rows of 128 bytes to 2 KB at K = 0.3, and held-out queries of MovieTweetings where the
data set is there, with a page window and without, one command at a time and four in flight. And a small device of one
channel of four dies with rows of 256 bytes, RTL beside the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.evaluate.device import tables_of
from nearflash.evaluate.workload import stored, synthetic
from nearflash.models import model_spec
from nearflash_sim.small.device import load, make_table, small_config
from nearflash_sim.timing.rtl import Query
from nearflash_sim.timing.rtl import measure as measure_rtl
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.tool import simulate
from nearflash_sim.timing.workload import Batch

from .locality import DATASET, WINDOW, held_out
from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

DIES = (4, 8)
ROW_BYTES = (128, 256, 1024, 2048)
TABLES, LOOKUPS, ROWS, QUERIES, BATCH = 8, 40, 100_000, 96, 4
SMALL_ROWS = (300, 64)  # and elements
SMALL_COMMANDS = {1: (12, 16), 4: (16, 24)}  # by depth: samples and the longest bag of five commands


def ordered(config: DeviceConfig, on: bool) -> DeviceConfig:
    return replace(config, lookup=replace(config.lookup, longest_queue_first=on))


def workloads(quick: bool) -> dict[str, tuple[list[TableSpec], list[Any]]]:
    """By name: tables, and commands."""
    base, out = model_spec("rmc2", ROWS), {}
    for nbytes in ROW_BYTES[-1:] if quick else ROW_BYTES:
        spec = replace(base, tables=tuple(replace(t, dim=nbytes // 4, lookups=LOOKUPS) for t in base.tables[:TABLES]))
        out[f"rows of {nbytes} B, K = 0.3"] = tables_of(spec), list(synthetic(spec, QUERIES, 0.3).commands(BATCH))
    if not quick and DATASET.is_dir():
        spec, test = held_out()
        out["MovieTweetings"] = tables_of(spec), list(stored("", test[:4000]).commands(8))
    return out


def simulated(tables: list[TableSpec], commands: Sequence[Any], dies: int, window: int, depth: int) -> dict[str, Any]:
    """The figures with and without."""
    base = DeviceConfig.preset("paper", dies=dies, blocks=1024)
    base = replace(base, lookup=replace(base.lookup, accumulators=TABLES * 512)).with_page_window(window)
    off, on = (simulate(ordered(base, on), tables, commands, None, depth) for on in (False, True))
    row: dict[str, Any] = {"dies_per_channel": dies, "page_window": window, "depth": depth}
    for name, run in (("off", off), ("on", on)):
        row |= {f"{name}_cycles": int(run.completed.max()),
                **{f"{name}_p{p}_us": float(np.percentile(run.latency, p)) / base.clock_mhz for p in (50, 99)}}
    busiest = max(v for k, v in off.counters.items() if k.endswith("bus_busy"))
    return row | {"bus_busy_share": busiest / row["off_cycles"],
                  "throughput_gain_share": row["off_cycles"] / row["on_cycles"] - 1,
                  **{f"p{p}_change_share": row[f"on_p{p}_us"] / row[f"off_p{p}_us"] - 1 for p in (50, 99)}}


def small(on: bool) -> Rows:
    """RTL and simulator."""
    config = small_config("longest" if on else "in-turn", channels=1, dies=4)
    config, out = ordered(replace(config, lookup=replace(config.lookup, tags=64)), on), []
    for depth, (samples, bag) in SMALL_COMMANDS.items():
        with runtime.open("sim", config=config) as device:
            table = make_table(np.random.default_rng(0), config, *SMALL_ROWS)
            load(device, [table], preload=True)
            rng, commands = np.random.default_rng(depth), []
            for _ in range(5):
                lengths = rng.integers(0, bag + 1, samples)
                commands.append([(rng.integers(0, SMALL_ROWS[0], int(lengths.sum())), np.cumsum(lengths) - lengths)])
            rtl = measure_rtl(device, [Query(bags) for bags in commands], depth)
            expected = Simulator(config, [table.spec], depth).run(Batch.of(bags) for bags in commands)
        out.append({"longest_queue_first": on, "depth": depth, "cycles": int(rtl.completed.max()),
                    "simulated_cycles": int(expected.completed.max())})
    return out


def measure(quick: bool = False) -> Rows:
    given, out = workloads(quick), []
    with progress() as bar:
        task = bar.add_task("order", total=len(given) * len(DIES) * 4 + 2, note="")
        for name, (tables, commands) in given.items():
            for dies in DIES:
                for window in (0, WINDOW):
                    for depth in (1, 4):
                        bar.update(task, advance=1, note=f"{name}, {dies} dies")
                        out.append({"workload": name} | simulated(tables, commands, dies, window, depth))
        rtl: Rows = []
        for on in (False, True):
            bar.update(task, advance=1, note="RTL")
            rtl += small(on)
    show_rows("the longest queue first, preset paper, simulated", (
        ("workload", "workload", ""), ("dies_per_channel", "dies", ""), ("page_window", "window", ""),
        ("depth", "in flight", ""), ("bus_busy_share", "bus busy", ".0%"), ("off_cycles", "cycles in turn", ","),
        ("throughput_gain_share", "throughput", "+.2%"), ("p50_change_share", "p50", "+.2%"),
        ("p99_change_share", "p99", "+.2%")), out)
    show_rows("a small device, one channel of four dies, RTL", (
        ("longest_queue_first", "longest queue first", ""), ("depth", "in flight", ""), ("cycles", "cycles", ","),
        ("simulated_cycles", "simulator's", ",")), rtl)
    if not DATASET.is_dir():
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
    return out + rtl
