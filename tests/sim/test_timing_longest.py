"""The simulator of time against the RTL where the bus goes to the die that most reads wait for, and what that is worth."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import assert_same_bits, expected, open_device, submit_lookup
from nearflash_sim.small.device import SMALL, load, make_table

#: One channel of four dies; of rows of 256 bytes, which keep the bus for 50 cycles, four dies ask more of it than it has.
LONGEST = replace(SMALL, name="longest", flash=replace(SMALL.flash, channels=1, dies=4),
                  lookup=replace(SMALL.lookup, tags=64, longest_queue_first=True))
KINDS = ((300, 64), (200, 24))  # rows and elements


@pytest.fixture(scope="module")
def device():
    with open_device(LONGEST) as opened:
        opened.made = [make_table(np.random.default_rng(n), LONGEST, *kind) for n, kind in enumerate(KINDS)]
        load(opened, opened.made, preload=True)
        yield opened


def bags_of(device, rng, samples, bag):
    """A bag of each table and sample, with rows of one page in four more often than the others."""
    bags = []
    for table in device.made:
        lengths = rng.integers(0, bag + 1, samples)
        rows = rng.integers(0, table.spec.rows, int(lengths.sum()))
        often = rng.random(len(rows)) < 0.3
        page = table.spec.rows_per_page(LONGEST)
        rows[often] = rows[often] // page // 4 * 4 * page
        bags.append((rows, np.cumsum(lengths) - lengths))
    return bags


def both(device, queries, depth):
    """Both start with an empty map cache."""
    device.driver.enable()
    rtl = measure(device, [Query(bags) for bags in queries], depth)
    return rtl, Simulator(device.config, [t.spec for t in device.made], depth).run(Batch.of(bags) for bags in queries)


@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 1, 40), (1, 12, 16), (2, 6, 30), (4, 4, 12), (4, 16, 24)])
def test_commands_end_when_they_do_in_rtl(device, depth, samples, bag):
    rng = np.random.default_rng(samples + bag)
    queries = [bags_of(device, rng, samples, bag) for _ in range(5)]
    rtl, simulated = both(device, queries, depth)
    print(rtl.completed - simulated.completed, rtl.completed)
    assert (np.abs(simulated.completed - rtl.completed) <= 0.001 * rtl.completed).all()
    in_turn = replace(LONGEST, lookup=replace(LONGEST.lookup, longest_queue_first=False))
    other = Simulator(in_turn, [t.spec for t in device.made], depth).run(Batch.of(bags) for bags in queries)
    print((other.completed - rtl.completed))
