"""What a workload's locality gives: the RTL with a page window, a row cache, both and neither, beside the simulator.

LOOKUP commands on the device of :mod:`.lookup` with four dies a channel (preset ``paper``): RMC1's lookups at K = 0.3, and
held-out queries of MovieTweetings with the shipped tables, where the data set is in ``../shared/data/movietweetings``.
The first command's answers are compared with :mod:`nearflash.reference.pooling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import Opcode
from nearflash.contract.row_cache import with_row_cache
from nearflash.data import QueryBatch
from nearflash.evaluate.workload import stored, synthetic
from nearflash.models import ModelSpec, model_spec
from nearflash.training import SHIPPED, Recipe, load_checkpoint, replay
from nearflash_sim.small.device import Table, load, make_table
from nearflash_sim.timing.rtl import Query
from nearflash_sim.timing.rtl import measure as measure_rtl
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch

from .lookup import device_config
from .report import Rows, console, progress, show_rows

__all__ = ["DATASET", "held_out", "measure"]

DIES, WINDOW, CACHE_MIB, BATCH, K = 4, 256, 1.0, 8, 0.3
LINE_BYTES = 128  # of the cache, for rows of 32 elements in fp32
CASES = {"neither": (0, 0.0), "page window": (WINDOW, 0.0), "row cache": (0, CACHE_MIB), "both": (WINDOW, CACHE_MIB)}
ROWS = 100_000  # of RMC1's tables, so that rows asked for seldom share a page
DATASET = Path(__file__).parents[2] / "shared" / "data" / "movietweetings"


def held_out() -> tuple[ModelSpec, QueryBatch]:
    """The shipped model, and MovieTweetings' queries that it was not trained on."""
    model, about = load_checkpoint(SHIPPED)
    _, test = replay(DATASET, model.spec, Recipe.from_dict(about["recipe"]))
    return model.spec, test


def workloads(quick: bool) -> dict[str, tuple[list[tuple[int, int]], list[Any]]]:
    """By name: (rows and elements of each table, commands)."""
    spec = model_spec("rmc1", ROWS)
    out = {f"RMC1, K = {K:g}": ([(t.rows, t.dim) for t in spec.tables],
                                list(synthetic(spec, BATCH * (2 if quick else 4), K).commands(BATCH)))}
    if DATASET.is_dir():
        shipped, test = held_out()
        out["MovieTweetings"] = ([(t.rows, t.dim) for t in shipped.tables],
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
        task = bar.add_task("locality", total=len(CASES) * len(given), note="")
        for case, (window, mib) in CASES.items():
            config = with_row_cache(device_config(DIES).with_page_window(window), mib, LINE_BYTES)
            bar.update(task, note=f"building the device: {case}")
            with runtime.open("sim", config=config) as device:
                for name, (shapes, commands) in given.items():
                    bar.update(task, advance=1, note=f"{name}, {case}")
                    out.append({"workload": name, "case": case, "page_window": window, "row_cache_mib": mib}
                               | answered(device, shapes, commands))
    show_rows(f"page window of {WINDOW} reads, row cache of {CACHE_MIB:g} MiB; preset paper, {DIES} dies a channel, RTL", (
        ("workload", "workload", ""), ("case", "device", ""), ("queries", "queries", ","),
        ("cycles", "cycles", ","), ("queries_per_second", "queries/s", ",.0f"),
        ("cell_reads_per_lookup", "cell reads per lookup", ".3f"), ("cache_hits_share", "cache hits", ".1%"),
        ("simulated_cycles", "simulator's cycles", ","), ("total_error", "off", ".3%"),
        ("wrong_elements", "wrong elements", "")), out)
    return out


def answered(device: runtime.Device, shapes: Sequence[tuple[int, int]], commands: Sequence[Any]) -> dict[str, Any]:
    """What ``commands`` take in RTL, beside the simulator; the first's answers are compared with the reference."""
    config = device.config
    for t in list(device.tables):
        device.delete_table(t)
    tables = [make_table(np.random.default_rng(n), config, rows, dim, bag=config.lookup.max_bag)
              for n, (rows, dim) in enumerate(shapes)]
    load(device, tables, preload=True)
    device.driver.enable()  # empty caches, as in the simulator
    depth = config.host.infer_depth
    rtl = measure_rtl(device, [Query(bags) for bags in commands], depth)
    simulated = Simulator(config, [t.spec for t in tables], depth).run(Batch.of(bags) for bags in commands)
    cycles, expected = (int(t.completed.max()) for t in (rtl, simulated))
    queries, lookups = sum(len(bags[0][1]) for bags in commands), rtl.counters["lookups_count"]
    reads, reads_expected = (sum(v for c, v in t.counters.items() if c.endswith("reads_count")) for t in (rtl, simulated))
    return {"queries": queries, "cycles": cycles, "queries_per_second": queries * config.clock_mhz * 1e6 / cycles,
            "cell_reads_per_lookup": reads / lookups,
            **{f"cache_{k}_share": rtl.counters.get(f"cache_{k}_count", 0) / lookups for k in ("hits", "kept", "dropped")},
            "simulated_cycles": expected, "simulated_reads_ratio": reads_expected / reads,
            "simulated_hits_share": simulated.counters.get("cache_hits_count", 0) / lookups,
            "total_error": expected / cycles - 1, "wrong_elements": wrong(device, tables, commands[0])}
