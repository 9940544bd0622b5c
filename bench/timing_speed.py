"""How fast the simulator of the device's time is: flash reads and lookups per second of CPU time, and what was hit.

RMC1's tables at the paper's size (8 x 29.3 million rows, 30 GB) on preset ``paper`` with larger flash: nothing of them is
allocated. Rows are uniform random, so that nearly every lookup misses the map cache, or of few pages, so that none does; or
by the locality generator at ``K``, on a device with a window of ``WINDOW`` reads and a row cache of ``CACHE_MIB``, with
either, and with neither.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.contract.row_cache import with_row_cache
from nearflash.data import StackDistance
from nearflash.evaluate.goals import CACHE_MIB, WINDOW
from nearflash_sim.timing.simulator import CHUNK, Simulator
from nearflash_sim.timing.workload import Batch, place

from .report import Rows, progress, show_rows

__all__ = ["measure"]

TABLES, ROWS, DIM, BAG = 8, 29_300_000, 32, 80
COMMANDS, SAMPLES, DEPTH = 4 * CHUNK, 4, 2
POPULAR = 4096  # rows of each table, all of whose pages the map cache holds
K, K_DIES = 0.3, 4

Draw = Callable[[int], np.ndarray]


def full_size(dies: int, window: int = 0, cache_mib: float = 0) -> tuple[DeviceConfig, list[TableSpec]]:
    """A device with room for the tables, and them."""
    base = DeviceConfig.preset("paper", dies=dies, blocks=65536 // dies // 4, pages=256).with_page_window(window)
    row = TableSpec(ROWS, DIM).stride_beats(base) * base.beat_bytes
    base = with_row_cache(base, cache_mib, row)
    return base, place(base, [TableSpec(ROWS, DIM)] * TABLES)


def uniform(rows: int) -> list[Draw]:
    """What draws so many of each table's rows."""
    rng = np.random.default_rng(0)
    return [partial(rng.integers, 0, rows)] * TABLES


def local() -> list[Draw]:
    return [StackDistance(ROWS, K, seed).draw for seed in range(TABLES)]


def batches(draws: list[Draw], commands: int) -> Iterator[Batch]:
    lengths = np.full((TABLES, SAMPLES), BAG)
    for _ in range(commands):
        yield Batch(False, 0, lengths, tuple(draw(SAMPLES * BAG) for draw in draws))


#: What is looked up, of how many dies a channel, and what else the device has.
CASES: tuple[tuple[str, Callable[[], list[Draw]], int, int, float], ...] = (
    *((name, partial(uniform, rows), dies, 0, 0.0) for dies in (1, 4)
      for name, rows in (("uniform", ROWS), ("few rows", POPULAR))),
    *((f"K = {K:g}{device}", local, K_DIES, window, cache) for device, window, cache in (
        ("", 0, 0.0), (", row cache", 0, CACHE_MIB), (", window", WINDOW, 0.0), (", both", WINDOW, CACHE_MIB))),
)


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    commands = COMMANDS // (8 if quick else 1)
    with progress() as bar:
        task = bar.add_task("timing_speed", total=len(CASES) * commands, note="compiling the loops")
        for name, draws, dies, window, cache in CASES:
            config, tables = full_size(dies, window, cache)
            simulator = Simulator(config, tables, DEPTH)
            drawing = draws()
            simulator.run(batches(drawing, 1))  # compiles, or loads what was compiled
            before = simulator.counters()
            given = list(batches(drawing, commands))  # drawing them isn't the simulator's work

            def shown(given: list[Batch] = given) -> Iterator[Batch]:
                for batch in given:
                    bar.advance(task)
                    yield batch

            bar.update(task, note=f"{name}, {dies} dies a channel")
            start = time.process_time()
            simulator.run(shown())
            seconds = time.process_time() - start
            count = {k: v - before[k] for k, v in simulator.counters().items()}
            lookups, reads = count["lookups_count"], sum(v for k, v in count.items() if k.endswith("reads_count"))
            out.append({"case": name, "dies": dies, "lookups_count": lookups,
                        "map_hit_share": 1 - count["map_misses_count"] / lookups,
                        "cache_hit_share": count.get("cache_hits_count", 0) / lookups, "reads_per_lookup": reads / lookups,
                        "reads_per_cpu_second": reads / seconds, "lookups_per_cpu_second": lookups / seconds,
                        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    show_rows("Speed of the timing simulator (one thread)", (
        ("case", "rows", ""), ("dies", "dies per channel", ""), ("lookups_count", "lookups", ","),
        ("map_hit_share", "map hits", ".1%"), ("cache_hit_share", "row cache hits", ".1%"),
        ("reads_per_lookup", "flash reads per lookup", ".3f"), ("reads_per_cpu_second", "flash reads/s", ",.0f"),
        ("lookups_per_cpu_second", "lookups/s", ",.0f"), ("peak_bytes", "peak memory (B)", ",")), out)
    return out
