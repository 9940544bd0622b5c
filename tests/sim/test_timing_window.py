"""The simulator of time against the RTL where dies take reads of the page that they read first, and the rule itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, locate, place

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import assert_same_bits, expected, open_device, submit_lookup
from nearflash_sim.small.device import WINDOWED, load, make_table

ROWS, ROWS_A_PAGE = 640, 16  # of 32 B; pages lie on two channels of two dies


@pytest.fixture(scope="module")
def device():
    with open_device(WINDOWED) as opened:
        opened.made = [make_table(np.random.default_rng(n), WINDOWED, ROWS, 8) for n in range(2)]
        load(opened, opened.made, preload=True)
        yield opened


def bags_of(device, rng, samples, bag, pages, one_of=1):
    """A bag of each table and sample: rows of a few pages, of the first of every ``one_of`` pages: with 2 those of channel
    0, with 4 those of its die 0."""
    bags = []
    for table in device.made:
        every = np.arange(ROWS - 4 * ROWS_A_PAGE)
        blocks = locate(WINDOWED, table.spec, every)
        every = every[blocks % one_of == 0]
        hot = rng.choice(every[:: ROWS_A_PAGE], pages, replace=False) // ROWS_A_PAGE
        rows = every[np.isin(every // ROWS_A_PAGE, hot)]
        lengths = rng.integers(0, bag + 1, samples)
        bags.append((rng.choice(rows, int(lengths.sum())), np.cumsum(lengths) - lengths))
    return bags


def both(device, queries, depth):
    """Both start with an empty map cache, and with dies that hold no page of the queries: the device first reads the last
    four pages, one on each die, which queries leave out."""
    nothing, first = np.zeros(0, np.int64), np.zeros(1, np.int64)
    device.result(submit_lookup(device, [(nothing, first), (np.arange(ROWS - 4 * ROWS_A_PAGE, ROWS, ROWS_A_PAGE), first)]))
    device.driver.enable()
    rtl = measure(device, [Query(bags) for bags in queries], depth)
    return rtl, Simulator(device.config, [t.spec for t in device.made], depth).run(Batch.of(bags) for bags in queries)


def reads(timeline):
    return sum(v for k, v in timeline.counters.items() if k.endswith("reads_count"))


@pytest.mark.parametrize("pages", [1, 2, 5])
@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 1, 30), (1, 6, 8), (2, 2, 12), (4, 3, 20), (4, 12, 9)])
def test_no_cycle_off_on_one_die(device, depth, samples, bag, pages):
    rng = np.random.default_rng(samples * 100 + bag + pages)
    queries = [bags_of(device, rng, samples, bag, pages, one_of=4) for _ in range(5)]
    rtl, simulated = both(device, queries, depth)
    assert simulated.submitted.tolist() == rtl.submitted.tolist()
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}
    assert 0 < reads(rtl) < rtl.counters["lookups_count"]


@pytest.mark.parametrize("seed", [180, 200])
def test_where_a_cycle_of_the_walkers_decides(device, seed):
    """Of random queries those in which a walker that finds its place again a cycle sooner (the first) or later (the second)
    would come too early or late for a read: rare, as a page takes it longer than all of its queue."""
    rng = np.random.default_rng(seed)
    depth, samples, bag, pages = (int(rng.integers(a, b)) for a, b in ((1, 5), (1, 16), (4, 32), (2, 9)))
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, pages, one_of=4) for _ in range(3)], depth)
    assert simulated.completed.tolist() == rtl.completed.tolist()


@pytest.mark.parametrize("seed", [5, 6, 8, 27])
def test_a_read_that_comes_while_the_walker_finds_nothing(device, seed):
    """Of random queries to two dies of one channel those in which a read comes in the very cycle in which the walker looks
    and finds no more in its die's queue: it looks again."""
    rng = np.random.default_rng(seed)
    depth, samples, bag, pages = (int(rng.integers(a, b)) for a, b in ((1, 5), (1, 16), (4, 32), (1, 9)))
    rtl, simulated = both(device, [bags_of(device, rng, samples, bag, pages, one_of=2) for _ in range(3)], depth)
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}


@pytest.mark.parametrize(("depth", "samples", "bag", "pages"),
                         [(1, 16, 6, 8), (2, 10, 12, 3), (3, 8, 12, 5), (4, 16, 9, 12), (4, 4, 30, 6)])
def test_several_channels_and_dies(device, depth, samples, bag, pages):
    rng = np.random.default_rng(depth)
    queries = [bags_of(device, rng, samples, bag, pages) for _ in range(4)]
    rtl, simulated = both(device, queries, depth)
    assert (np.abs(simulated.completed - rtl.completed) <= 0.001 * rtl.completed).all()
    assert reads(simulated) == reads(rtl)
    assert reads(rtl) < 0.7 * rtl.counters["lookups_count"]


def test_answers_are_exact_and_nothing_is_left(device):
    """Commands in flight whose reads overtake one another, then the same device again."""
    rng = np.random.default_rng(9)
    for _ in range(2):
        given = [bags_of(device, rng, 8, 20, 6) for _ in range(4)]
        tickets = [submit_lookup(device, bags) for bags in given]
        for bags, ticket in zip(given, tickets, strict=True):
            assert_same_bits(device.result(ticket), expected(device, device.made, bags))


PAPER = DeviceConfig.preset("paper", channels=1, dies=1)


def paper_bag(config, rows, bag):
    tables = place(config, [TableSpec(rows, 32)])
    return Simulator(config, tables).run([Batch.of([(np.array(bag, np.int64), np.zeros(1, np.int64))])])


def test_pages_in_turn_are_read_once_for_what_the_window_sees():
    """Two pages A and B of one die, rows of them in turn: ABABABAB. A window of 3 sees BAB behind the first: AA BBB AA B."""
    times = {}
    for window, wanted in ((0, 8), (1, 8), (3, 4), (64, 2)):
        out = paper_bag(PAPER.with_page_window(window), 64, [0, 32, 1, 33, 2, 34, 3, 35])
        assert reads(out) == wanted, window
        assert out.counters["lookups_count"] == 8
        times[window] = int(out.latency[0])
    assert times[0] - times[64] > 6 * (2800 - 100)


def test_reads_of_one_row_share_a_transfer():
    """Of two rows of a page, one of them five times: one cell read, and two transfers."""
    plain, out = (paper_bag(PAPER.with_page_window(w), 64, [5, 5, 5, 9, 5, 5]) for w in (0, 64))
    assert (reads(plain), reads(out)) == (6, 1)
    assert out.counters["channel0_bus_busy"] * 3 == plain.counters["channel0_bus_busy"]


def test_queues_of_several_dies_read_each_page_of_a_bag_once():
    """All of a bag is queued long before the dies are through with it."""
    config = DeviceConfig.preset("paper", channels=2, dies=2).with_page_window(256)
    out = paper_bag(config, 8 * 32, np.random.default_rng(1).permutation(8 * 32)[:200].tolist())
    assert reads(out) == 8
    assert out.counters["lookups_count"] == 200
