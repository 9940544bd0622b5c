"""The simulator of time against the RTL where several lines of the map are on their way at once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.data import BlockLoad
from nearflash_sim.small.device import LINES, load, make_table
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import assert_same_bits, expected, open_device, submit_lookup

ROWS = 320  # of 256 B, two a page: their entries take 40 lines of the map, of which 8 are kept


@pytest.fixture(scope="module")
def device():
    with open_device(LINES) as opened:
        opened.made = [make_table(np.random.default_rng(n), LINES, ROWS, 64) for n in range(2)]
        load(opened, opened.made, preload=True)
        yield opened


def bags_of(device, rng, samples, bag, near):
    """A bag of each table and sample: of its rows as many as ``near`` says lie within a line or two of one another, and the
    rest anywhere."""
    bags = []
    for _ in device.made:
        lengths = rng.integers(0, bag + 1, samples)
        total = int(lengths.sum())
        rows = rng.integers(0, ROWS, total)
        first = rng.integers(0, ROWS - 24, samples).repeat(lengths)
        rows = np.where(rng.random(total) < near, first + rng.integers(0, 24, total), rows)
        bags.append((rows, np.cumsum(lengths) - lengths))
    return bags


def both(device, queries, depth, blocks=None):
    """Both start with an empty map cache."""
    device.driver.enable()
    rtl = measure(device, [Query(bags) for bags in queries], depth, blocks)
    simulator = Simulator(device.config, [t.spec for t in device.made], depth, blocks=blocks)
    return rtl, simulator.run(Batch.of(bags) for bags in queries)
