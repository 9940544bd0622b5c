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
from test_lockstep import BOTH

ROWS = 320  # of 256 B, two a page: their entries take 40 lines of the map, of which 8 are kept


def opened(config, rows, dim):
    device = open_device(config)
    device.made = [make_table(np.random.default_rng(n), config, rows, dim) for n in range(2)]
    load(device, device.made, preload=True)
    return device


@pytest.fixture(scope="module")
def device():
    with opened(LINES, ROWS, 64) as one_die:
        yield one_die


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


@pytest.mark.parametrize("near", [0, 0.5, 0.9])
@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 1, 8), (1, 1, 30), (1, 6, 8), (2, 2, 12), (4, 12, 9), (1, 40, 1)])
def test_no_cycle_off_on_one_die(device, depth, samples, bag, near):
    """Lines that are missing, one after the other or many at once, and others' rows in them. The cache is empty at the start
    of both."""
    rng = np.random.default_rng(samples * 100 + bag)
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, near) for _ in range(4)], depth)
    assert simulated.submitted.tolist() == rtl.submitted.tolist()
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}
    assert 0 < rtl.counters["map_misses_count"] < rtl.counters["lookups_count"]


@pytest.mark.parametrize(("depth", "samples", "bag", "n", "longest", "block_depth"),
                         [(1, 5, 20, 4, 4, 1), (1, 5, 20, 30, 1, 4), (4, 16, 9, 30, 1, 4), (4, 16, 9, 40, 3, 8)])
def test_reads_of_block_io_share_the_map(device, depth, samples, bag, n, longest, block_depth):
    """As near as where a line is fetched alone. That one of them finds the other's line isn't always known."""
    rng = np.random.default_rng(n)
    count = rng.integers(1, longest + 1, n)
    blocks = BlockLoad(rng.integers(0, 320 - count + 1), count, block_depth)
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, 0.5) for _ in range(4)], depth, blocks)
    assert len(rtl.block_completed) == n
    assert np.abs(simulated.block_completed - rtl.block_completed).max() <= 2
    assert np.abs(simulated.completed - rtl.completed).max() <= 2
    assert simulated.counters["map_misses_count"] == pytest.approx(rtl.counters["map_misses_count"], rel=0.01)


@pytest.fixture(scope="module")
def cached():
    """The device of the lockstep test: two channels of two dies, a row cache and a page window."""
    with opened(BOTH, 2560, 8) as several_dies:
        yield several_dies


@pytest.mark.parametrize(("depth", "samples", "bag", "gain"), [(1, 6, 8, 1.5), (4, 12, 9, 1.8), (4, 16, 20, 2.6)])
def test_where_the_map_is_what_limits(cached, depth, samples, bag, gain):
    """Few rows, which are in the row cache soon, but far apart: most need a line that isn't there. Four at once are ``gain``
    times as fast as one and a tenth faster than two."""
    rng, queries = np.random.default_rng(samples * 100 + bag), []
    for _ in range(8):
        lengths = rng.integers(0, bag + 1, (2, samples))
        queries.append([(rng.integers(0, 16, n.sum()) * 160 + t, np.cumsum(n) - n) for t, n in enumerate(lengths)])
    rtl, simulated = both(cached, queries, depth)
    assert (np.abs(simulated.completed - rtl.completed) <= 0.005 * rtl.completed).all()
    assert rtl.counters["map_misses_count"] > 0.6 * rtl.counters["lookups_count"]
    for misses, times in ((1, gain), (2, 1.1)):
        config = replace(BOTH, lookup=replace(BOTH.lookup, map_misses=misses))
        fewer = Simulator(config, [t.spec for t in cached.made], depth).run(Batch.of(bags) for bags in queries)
        assert fewer.completed[-1] > times * rtl.completed[-1]


def test_answers_are_exact_and_nothing_is_left(device):
    """Twice on the same device; rows of other commands take the places of lines in between, and blocks are mapped anew."""
    rng = np.random.default_rng(9)
    for step in range(2):
        given = [bags_of(device, rng, 8, 20, 0.5) for _ in range(4)]
        tickets = [submit_lookup(device, bags) for bags in given]
        device.write(device.config.lbas - 20 + step, rng.bytes(device.config.lba_bytes))
        for bags, ticket in zip(given, tickets, strict=True):
            assert_same_bits(device.result(ticket), expected(device, device.made, bags))
