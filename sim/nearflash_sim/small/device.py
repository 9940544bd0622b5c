"""A small device that is Verilated in seconds and shared by tests and benches, and tables with known contents for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from nearflash.contract import DeviceConfig, RowCacheConfig, RowFormat, TableSpec
from nearflash.contract.table import PoolMode
from nearflash.quantize.tables import encode_rows, largest_magnitude
from nearflash.reference.pooling import choose_window, pool_bags
from nearflash.runtime import Device

__all__ = ["CACHED", "LINES", "LONGEST", "PLANES", "SMALL", "WINDOWED", "Table", "load", "make_table", "small_config"]


def small_config(name: str = "system", channels: int = 2, dies: int = 2, blocks: int = 64) -> DeviceConfig:
    """Preset tiny with more flash (the log is never cleaned), its own block I/O queue and more in flight."""
    c = DeviceConfig.preset("tiny", channels=channels, dies=dies, blocks=blocks)
    return replace(c, name=name, host=replace(c.host, queue_pairs=3, infer_depth=4),
                   lookup=replace(c.lookup, sample_slots=4, max_extents=4))


#: The lookup-only device most tests use, so that it is compiled once.
SMALL = small_config()
#: The same with a row cache, smaller than the tables of most tests.
CACHED = replace(small_config("cached"), row_cache=RowCacheConfig(lines=64, ways=4, line_bytes=32))
#: The same with a change-read-column and a page window. tCCS is longer than a row takes from DRAM: else it matters what DRAM
#: gives first of what is asked for in one cycle, and that the simulator of time doesn't know.
WINDOWED = replace(SMALL, name="windowed", flash=replace(SMALL.flash, t_ccs_ns=800),
                   lookup=replace(SMALL.lookup, tags=64, page_window=24))
#: The same on one channel of four dies, whose bus goes to the longest queue.
LONGEST = replace(SMALL, name="longest", flash=replace(SMALL.flash, channels=1, dies=4),
                  lookup=replace(SMALL.lookup, tags=64, longest_queue_first=True))
#: The same with two planes in each of its dies.
PLANES = replace(small_config("planes"), flash=replace(SMALL.flash, planes=2), lookup=replace(SMALL.lookup, tags=64))
#: The same on one die, and with several lines of the map on their way at once.
LINES = replace(small_config("lines", channels=1, dies=1), lookup=replace(SMALL.lookup, tags=64, map_misses=4))


@dataclass
class Table:
    """A table with its stored bytes ``rows`` uint8 [rows, row bytes]."""

    spec: TableSpec
    rows: np.ndarray

    def pooled(self, acc_bits: int, bag: Sequence) -> np.ndarray:
        """fp32 [bags, dim]: what the device must return, to the bit."""
        indices, offsets, *weights = bag
        lengths = np.diff(np.append(offsets, len(indices)))
        values, info = pool_bags(self.spec, acc_bits, self.rows[indices], lengths, weights[0] if weights else None)
        assert not info.bad.any()
        return values


def make_table(rng: np.random.Generator, config: DeviceConfig, rows: int, dim: int, format: RowFormat = RowFormat.FP32,
               mode: PoolMode = PoolMode.SUM, bag: int = 32, max_weight: float = 4.0) -> Table:
    """Normally distributed rows in a window that holds ``bag`` of them at weights up to ``max_weight``."""
    raw = encode_rows(rng.standard_normal((rows, dim)).astype(np.float32), format)
    lsb, headroom = choose_window(largest_magnitude(raw, format, dim), bag, config.lookup.acc_bits, max_weight, format)
    return Table(TableSpec(rows, dim, format, mode, lsb, headroom), raw)


def load(device: Device, tables: Sequence[Table], preload: bool = False) -> None:
    """Store and open ``tables`` as numbers 0, 1, ..."""
    placed = device.create_tables({t: (table.spec, table.rows) for t, table in enumerate(tables)}, preload=preload)
    for t, table in enumerate(tables):
        table.spec = placed[t]
