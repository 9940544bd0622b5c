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
from nearflash_sim.small.device import LONGEST, load, make_table

KINDS = ((300, 64), (200, 24))  # rows and elements; rows of 256 bytes keep the bus for 50 cycles, tR is 200


@pytest.fixture
def device():
    """Opened anew for each test: who had the bus before counts."""
    with open_device(LONGEST) as opened:
        opened.made = [make_table(np.random.default_rng(n), LONGEST, *kind) for n, kind in enumerate(KINDS)]
        load(opened, opened.made, preload=True)
        yield opened


def bags_of(device, rng, samples, bag):
    """A bag of each table and sample, with rows of every fourth page more often than others."""
    bags = []
    for table in device.made:
        lengths = rng.integers(0, bag + 1, samples)
        rows = rng.integers(0, table.spec.rows, int(lengths.sum()))
        often = rng.random(len(rows)) < 0.3
        page = table.spec.rows_per_page(LONGEST)
        rows[often] = rows[often] // page // 4 * 4 * page
        bags.append((rows, np.cumsum(lengths) - lengths))
    return bags


def simulated(config, device, queries, depth):
    return Simulator(config, [t.spec for t in device.made], depth).run(Batch.of(bags) for bags in queries)


@pytest.mark.parametrize(("depth", "samples", "bag", "off"),
                         [(1, 1, 30, 0), (1, 12, 16, 0), (1, 6, 30, 0), (4, 16, 24, 0.01)])
def test_commands_end_when_they_do_in_rtl(device, depth, samples, bag, off):
    """To the cycle, one at a time; in flight a read that comes a few cycles sooner may have the choice fall on another die.
    In turn they end otherwise."""
    rng = np.random.default_rng(samples + bag)
    queries = [bags_of(device, rng, samples, bag) for _ in range(3)]
    rtl = measure(device, [Query(bags) for bags in queries], depth)
    got = simulated(LONGEST, device, queries, depth)
    assert (np.abs(got.completed - rtl.completed) <= off * rtl.completed).all()
    assert got.counters["channel0_bus_busy"] == rtl.counters["channel0_bus_busy"]
    in_turn = replace(LONGEST, lookup=replace(LONGEST.lookup, longest_queue_first=False))
    assert simulated(in_turn, device, queries, depth).completed.tolist() != got.completed.tolist()


def test_answers_are_exact(device):
    """Commands in flight."""
    rng = np.random.default_rng(9)
    given = [bags_of(device, rng, 8, 20) for _ in range(4)]
    tickets = [submit_lookup(device, bags) for bags in given]
    for bags, ticket in zip(given, tickets, strict=True):
        assert_same_bits(device.result(ticket), expected(device, device.made, bags))


def test_a_busy_bus_is_worth_more_in_that_order():
    """Rows of 2 KB on eight dies: their transfers take longer than a read of all dies at once. One command of 240 rows."""
    config = DeviceConfig.preset("paper", channels=1, dies=8)
    rows = np.random.default_rng(1).integers(0, 800, 240)
    ends = {}
    for on in (False, True):
        c = replace(config, lookup=replace(config.lookup, longest_queue_first=on))
        tables = place(c, [TableSpec(800, 512)])
        ends[on] = int(Simulator(c, tables).run([Batch.of([(rows, np.zeros(1, np.int64))])]).completed[0])
    assert ends[True] < 0.95 * ends[False]
