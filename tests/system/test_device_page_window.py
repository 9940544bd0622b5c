"""The page window on the whole device: exact answers beside block I/O, and the gated model beside the ungated one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_bench import TIMEOUT, Recorded, assert_one_device, assert_same_bits, expected, random_block_io, submit_lookup
from nearflash.contract import RowFormat
from nearflash.contract.table import PoolMode
from nearflash.runtime import Device
from nearflash.runtime.layout import table_pages
from nearflash_sim.small.device import WINDOWED, load, make_table

KINDS = ((96, 8, RowFormat.FP32, PoolMode.SUM), (64, 4, RowFormat.FP16, PoolMode.MEAN),
         (80, 12, RowFormat.INT8, PoolMode.SUM))


def hot_bags(rng, tables, batch):
    """Bags of up to 20 rows, most of them of a few that all share."""
    bags = []
    for table in tables:
        lengths = rng.integers(0, 21, batch)
        few = rng.integers(0, table.spec.rows, 4)
        rows = np.where(rng.random(lengths.sum()) < 0.8, rng.choice(few, lengths.sum()),
                        rng.integers(0, table.spec.rows, lengths.sum()))
        bags.append((rows, np.cumsum(lengths) - lengths))
    return bags


def traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """Lookups in flight, each answer compared, block I/O on other pages and between them on a table's own, on memories of
    random timing, some of which stall at random."""
    rng = np.random.default_rng(seed)
    backend = Recorded(WINDOWED, gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        tables = [make_table(rng, WINDOWED, *kind) for kind in KINDS]
        load(device, tables, preload=bool(seed % 2))
        for step in range(8):
            backend.random_timing(rng, (0.0, 0.0, 0.2)[step % 3], step + 1)
            given = [hot_bags(rng, tables, int(rng.integers(1, 9))) for _ in range(int(rng.integers(1, 5)))]
            tickets = [submit_lookup(device, bags) for bags in given]
            random_block_io(rng, device, 2)
            for bags, ticket in zip(given, tickets, strict=True):
                assert_same_bits(device.result(ticket), expected(device, tables, bags))
            table = tables[step % len(tables)]
            table.rows = make_table(rng, WINDOWED, table.spec.rows, table.spec.dim, table.spec.format, table.spec.mode).rows
            device.write(table.spec.extents[0].lba, table_pages(table.spec, table.rows, WINDOWED).tobytes())
            backend.end_step(device, rng, 20_000)
    return backend.log


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_are_exact_and_gated_and_ungated_models_are_one_device(seed):
    log = assert_one_device(traffic, seed)
    counters = dict(next(entry for entry in reversed(log) if entry[1] == "counters")[2])
    reads = sum(v for name, v in counters.items() if name.endswith("reads_count"))
    assert reads < 0.5 * counters["lookups_count"]
