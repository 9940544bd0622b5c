"""The simulator of time against the RTL where dies have two planes, and what planes give."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.small.device import PLANES, load, make_table
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, locate, place

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import assert_same_bits, expected, open_device, submit_lookup

ROWS = 640  # of 32 B, 16 a page


@pytest.fixture(scope="module")
def device():
    with open_device(PLANES) as opened:
        opened.made = [make_table(np.random.default_rng(n), PLANES, ROWS, 8) for n in range(2)]
        load(opened, opened.made, preload=True)
        yield opened


def bags_of(device, rng, samples, bag, one_die):
    """A bag of each table and sample, with ``one_die`` of rows of both planes of channel 0's die 0."""
    bags = []
    for table in device.made:
        rows = np.arange(ROWS)
        if one_die:
            rows = rows[locate(PLANES, table.spec, rows) % 4 == 0]
        lengths = rng.integers(0, bag + 1, samples)
        bags.append((rng.choice(rows, int(lengths.sum())), np.cumsum(lengths) - lengths))
    return bags


def both(device, queries, depth):
    """Both start with an empty map cache."""
    device.driver.enable()
    rtl = measure(device, [Query(bags) for bags in queries], depth)
    return rtl, Simulator(device.config, [t.spec for t in device.made], depth).run(Batch.of(bags) for bags in queries)


@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 1, 30), (1, 6, 8), (2, 2, 12), (4, 3, 20), (4, 12, 9)])
def test_no_cycle_off_on_the_planes_of_one_die(device, depth, samples, bag):
    rng = np.random.default_rng(samples * 100 + bag)
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, one_die=True) for _ in range(4)], depth)
    assert simulated.submitted.tolist() == rtl.submitted.tolist()
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}
    busy = {name: cycles for name, cycles in rtl.counters.items() if "_plane" in name and cycles}
    assert set(busy) == {"channel0_die0_plane0_busy", "channel0_die0_plane1_busy"}


@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 16, 6), (2, 10, 12), (4, 16, 9), (4, 4, 30)])
def test_several_channels_and_dies(device, depth, samples, bag):
    rng = np.random.default_rng(depth * samples)
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, one_die=False) for _ in range(4)], depth)
    assert (np.abs(simulated.completed - rtl.completed) <= 0.001 * rtl.completed).all()
    reads = [name for name in rtl.counters if name.endswith("reads_count")]
    assert [simulated.counters[name] for name in reads] == [rtl.counters[name] for name in reads]


def test_answers_are_exact_with_commands_in_flight(device):
    rng = np.random.default_rng(9)
    given = [bags_of(device, rng, 8, 20, one_die=False) for _ in range(4)]
    tickets = [submit_lookup(device, bags) for bags in given]
    for bags, ticket in zip(given, tickets, strict=True):
        assert_same_bits(device.result(ticket), expected(device, device.made, bags))


def lookups(config, rows, bag, slices=0):
    tables = place(config, [TableSpec(rows, 32)])
    return Simulator(config, tables, slices=slices).run([Batch.of([(np.array(bag, np.int64), np.zeros(1, np.int64))])])


def test_planes_read_at_the_same_time_unless_one_has_both_rows():
    """Rows of two pages of one die: of its two planes, then of the same one."""
    one, two = (DeviceConfig.preset("paper", channels=1, planes=planes) for planes in (1, 2))
    apart, same = [0, 32], [0, 64]  # 32 rows a page; pages go round the planes
    long, short = int(lookups(one, 96, apart).latency[0]), int(lookups(two, 96, apart).latency[0])
    assert 2800 - 100 < long - short < 2800 + 100
    assert abs(int(lookups(two, 96, same).latency[0]) - long) < 10


def test_planes_have_tracks_of_their_own():
    config = DeviceConfig.preset("paper", channels=2, dies=2, planes=2)
    out = lookups(config, 32 * 8, range(0, 32 * 8, 32), slices=1000)
    arrays = sorted(s.track for s in out.slices if s.track.count("die") and s.name.startswith("array"))
    assert arrays == [f"channel{c}.die{d}_plane{p}" for c in (0, 1) for d in (0, 1) for p in (0, 1)]


def test_a_device_without_planes_names_none():
    assert not [name for name in lookups(replace(PLANES, flash=replace(PLANES.flash, planes=1)), 64, [0]).counters
                if "plane" in name]
