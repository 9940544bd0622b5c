"""The row cache in RTL: the same LOOKUP commands on a device with and without, beside the simulator of its time.

MovieTweetings' held-out queries with the shipped model's tables (preset ``paper``, 4 channels, 4 dies a channel, a cache
of 1 MiB) where the data set is in ``../shared/data/movietweetings``. The first commands' answers are compared with
:mod:`nearflash.reference.pooling`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from nearflash.contract import DeviceConfig, Opcode
from nearflash.contract.row_cache import with_row_cache
from nearflash.evaluate.device import widest_row
from nearflash.evaluate.workload import stored
from nearflash.runtime import Device
from nearflash.training import Recipe, load_checkpoint, replay
from nearflash_sim.backend import SimBackend
from nearflash_sim.small.device import load, make_table
from nearflash_sim.timing.rtl import Query
from nearflash_sim.timing.rtl import measure as measure_rtl
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch

from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

DIES, CACHE_MIB, BATCH, CHECKED = 4, 1.0, 8, 4
DATASET = Path(__file__).parents[2] / "shared" / "data" / "movietweetings"


def measure(quick: bool = False) -> Rows:
    if not DATASET.is_dir():
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
        return []
    model, about = load_checkpoint(Path(str(files("nearflash") / "weights" / "movietweetings.npz")))
    spec = model.spec
    _, test = replay(DATASET, spec, Recipe.from_dict(about["recipe"]))
    commands: list[Any] = list(stored("", test[: 80 if quick else 600]).commands(BATCH))
    plain, out = DeviceConfig.preset("paper", dies=DIES), []
    with progress() as bar:
        task = bar.add_task("row cache", total=2, note="")
        for mib in (0.0, CACHE_MIB):
            config = with_row_cache(plain, mib, widest_row(plain, spec))
            bar.update(task, note=f"building the device with {mib:g} MiB")
            with Device(SimBackend(config)) as device:
                tables = [make_table(np.random.default_rng(n), config, t.rows, t.dim, bag=config.lookup.max_bag)
                          for n, t in enumerate(spec.tables)]
                load(device, tables, preload=True)
                device.driver.enable()  # empty caches, as in the simulator
                bar.update(task, note=f"RTL with {mib:g} MiB")
                depth = config.host.infer_depth
                rtl = measure_rtl(device, [Query(bags) for bags in commands], depth)
                wrong = sum(_wrong(device, tables, bags) for bags in commands[:CHECKED])
            simulated = Simulator(config, [t.spec for t in tables], depth).run(Batch.of(bags) for bags in commands)
            queries = sum(len(bags[0][1]) for bags in commands)
            cycles, lookups = int(rtl.completed.max()), rtl.counters["lookups_count"]
            reads = sum(v for c, v in rtl.counters.items() if c.endswith("reads_count"))
            out.append({
                "cache_mib": mib, "queries": queries, "cycles": cycles,
                "queries_per_second": queries * config.clock_mhz * 1e6 / cycles, "cell_reads_per_lookup": reads / lookups,
                **{f"{k}_share": rtl.counters.get(f"cache_{k}_count", 0) / lookups for k in ("hits", "kept", "dropped")},
                "simulated_cycles": int(simulated.completed.max()),
                "total_error": int(simulated.completed.max()) / cycles - 1,
                "simulated_hits_share": simulated.counters.get("cache_hits_count", 0) / lookups, "wrong_elements": wrong})
            bar.advance(task)
    show_rows("row cache, preset paper, 4 dies a channel, RTL", (
        ("cache_mib", "MiB", "g"), ("queries", "queries", ","), ("cycles", "cycles", ","),
        ("queries_per_second", "queries/s", ",.0f"), ("cell_reads_per_lookup", "cell reads per lookup", ".3f"),
        ("hits_share", "hits", ".1%"), ("dropped_share", "dropped", ".2%"), ("simulated_cycles", "simulator's cycles", ","),
        ("total_error", "off", ".3%"), ("simulated_hits_share", "its hits", ".1%"), ("wrong_elements", "wrong", "")), out)
    return out


def _wrong(device: Device, tables: list[Any], bags: Any) -> int:
    """How many pooled elements of a command differ from the reference."""
    got = device.result(device._query(Opcode.LOOKUP, None, bags, None))
    want = np.concatenate([t.pooled(device.config.lookup.acc_bits, b) for t, b in zip(tables, bags, strict=True)], axis=1)
    return int((got.view(np.uint32) != np.ascontiguousarray(want, np.float32).view(np.uint32)).sum())
