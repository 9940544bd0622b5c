"""How fast the simulator of the device's time is: flash reads and lookups per second of CPU time, and the map's hit rate.

RMC1's tables at the paper's size (8 x 29.3 million rows, 30 GB) on preset ``paper`` with larger flash: nothing of them is
allocated. Rows are uniform random, so that nearly every lookup misses the map cache, or of few pages, so that none does.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.timing.simulator import CHUNK, Simulator
from nearflash_sim.timing.workload import Batch, place

from .report import Rows, progress, show_rows

__all__ = ["measure"]

TABLES, ROWS, DIM, BAG = 8, 29_300_000, 32, 80
COMMANDS, SAMPLES, DEPTH = 4 * CHUNK, 4, 2
POPULAR = 4096  # rows of each table, all of whose pages the map cache holds


def full_size(dies: int) -> tuple[DeviceConfig, list[TableSpec]]:
    """A device with room for the tables, and them."""
    base = DeviceConfig.preset("paper", dies=dies, blocks=65536 // dies // 4, pages=256)
    return base, place(base, [TableSpec(ROWS, DIM)] * TABLES)


def batches(rows: int, commands: int, seed: int = 0) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    lengths = np.full((TABLES, SAMPLES), BAG)
    for _ in range(commands):
        yield Batch(False, 0, lengths, tuple(rng.integers(0, rows, SAMPLES * BAG) for _ in range(TABLES)))


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    commands = COMMANDS // (8 if quick else 1)
    with progress() as bar:
        task = bar.add_task("timing_speed", total=4 * commands, note="compiling the loops")
        for dies in (1, 4):
            config, tables = full_size(dies)
            config = replace(config, name=f"{dies} dies")
            for rows in (ROWS, POPULAR):
                simulator = Simulator(config, tables, DEPTH)
                simulator.run(batches(rows, 1, seed=1))  # compiles, or loads what was compiled
                before = simulator.counters()
                given = list(batches(rows, commands))  # drawing them isn't the simulator's work

                def shown(given: list[Batch] = given) -> Iterator[Batch]:
                    for batch in given:
                        bar.advance(task)
                        yield batch

                bar.update(task, note=f"{dies} dies per channel")
                start = time.process_time()
                simulator.run(shown())
                seconds = time.process_time() - start
                count = {k: v - before[k] for k, v in simulator.counters().items()}
                reads = sum(v for k, v in count.items() if k.endswith("reads_count"))
                out.append({"dies": dies, "rows": rows * TABLES, "lookups_count": count["lookups_count"],
                            "map_hit_share": 1 - count["map_misses_count"] / count["lookups_count"],
                            "reads_per_cpu_second": reads / seconds,
                            "lookups_per_cpu_second": count["lookups_count"] / seconds,
                            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    show_rows("Speed of the timing simulator (one thread)", (
        ("dies", "dies per channel", ""), ("rows", "rows", ","), ("lookups_count", "lookups", ","),
        ("map_hit_share", "map hits", ".1%"), ("reads_per_cpu_second", "flash reads/s", ",.0f"),
        ("lookups_per_cpu_second", "lookups/s", ",.0f"), ("peak_bytes", "peak memory (B)", ",")), out)
    return out
