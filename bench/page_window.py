"""A page read once for all vectors wanted from it: the RTL with ``lookup.page_window`` and without, beside the simulator.

LOOKUP commands on the device of :mod:`.lookup` with four dies a channel (preset ``paper``): RMC1's lookups at K = 0.3, and
held-out queries of MovieTweetings with the shipped tables, where the data set is in ``../shared/data/movietweetings``.
The first command's answers are compared with :mod:`nearflash.reference.pooling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import Opcode
from nearflash.evaluate.workload import stored, synthetic
from nearflash.models import model_spec
from nearflash.training import Recipe, load_checkpoint, replay
from nearflash_sim.small.device import Table, load, make_table
from nearflash_sim.timing.rtl import Query
from nearflash_sim.timing.rtl import measure as measure_rtl
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch

from .lookup import device_config
from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

DIES, WINDOW, BATCH, K = 4, 256, 8, 0.3
ROWS = 100_000  # of RMC1's tables, so that rows asked for seldom share a page
DATASET = Path(__file__).parents[2] / "shared" / "data" / "movietweetings"


def workloads(quick: bool) -> dict[str, tuple[list[tuple[int, int]], list[Any]]]:
    """By name: (rows and elements of each table, commands)."""
    spec = model_spec("rmc1", ROWS)
    out = {f"RMC1, K = {K:g}": ([(t.rows, t.dim) for t in spec.tables],
                                list(synthetic(spec, BATCH * (2 if quick else 4), K).commands(BATCH)))}
    if DATASET.is_dir():
        model, about = load_checkpoint(Path(str(files("nearflash") / "weights" / "movietweetings.npz")))
        _, test = replay(DATASET, model.spec, Recipe.from_dict(about["recipe"]))
        out["MovieTweetings"] = ([(t.rows, t.dim) for t in model.spec.tables],
                                 list(stored("", test[: 100 if quick else 400]).commands(BATCH)))
    else:
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
    return out


def wrong(device: runtime.Device, tables: Sequence[Table], bags: Any) -> int:
    """How many pooled elements of a command differ from the reference."""
    got = device.result(device._query(Opcode.LOOKUP, None, bags, None))
    want = np.concatenate([t.pooled(device.config.lookup.acc_bits, b) for t, b in zip(tables, bags, strict=True)], axis=1)
    return int((got.view(np.uint32) != np.ascontiguousarray(want, np.float32).view(np.uint32)).sum())


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    given = workloads(quick)
    with progress() as bar:
        task = bar.add_task("page window", total=2 * len(given), note="")
        for window in (0, WINDOW):
            config = device_config(DIES).with_page_window(window)
            bar.update(task, note=f"building the device with a window of {window}")
            with runtime.open("sim", config=config) as device:
                for name, (shapes, commands) in given.items():
                    bar.update(task, advance=1, note=f"{name}, window of {window}")
                    for t in list(device.tables):
                        device.delete_table(t)
                    tables = [make_table(np.random.default_rng(n), config, rows, dim, bag=config.lookup.max_bag)
                              for n, (rows, dim) in enumerate(shapes)]
                    load(device, tables, preload=True)
                    device.driver.enable()  # an empty map cache, as in the simulator
                    depth = config.host.infer_depth
                    rtl = measure_rtl(device, [Query(bags) for bags in commands], depth)
                    simulated = Simulator(config, [t.spec for t in tables], depth).run(Batch.of(bags) for bags in commands)
                    cycles, expected = (int(t.completed.max()) for t in (rtl, simulated))
                    queries = sum(len(bags[0][1]) for bags in commands)
                    reads, reads_expected = (sum(v for c, v in t.counters.items() if c.endswith("reads_count"))
                                             for t in (rtl, simulated))
                    out.append({
                        "workload": name, "page_window": window, "queries": queries, "cycles": cycles,
                        "queries_per_second": queries * config.clock_mhz * 1e6 / cycles,
                        "cell_reads_per_lookup": reads / rtl.counters["lookups_count"],
                        "simulated_cycles": expected, "simulated_reads_ratio": reads_expected / reads,
                        "total_error": expected / cycles - 1, "wrong_elements": wrong(device, tables, commands[0])})
    show_rows(f"page window of {WINDOW} reads, preset paper, {DIES} dies a channel, RTL", (
        ("workload", "workload", ""), ("page_window", "window", ""), ("queries", "queries", ","),
        ("cycles", "cycles", ","), ("queries_per_second", "queries/s", ",.0f"),
        ("cell_reads_per_lookup", "cell reads per lookup", ".3f"), ("simulated_cycles", "simulator's cycles", ","),
        ("total_error", "off", ".3%"), ("wrong_elements", "wrong elements", "")), out)
    return out
