"""The row cache in the simulator of time, and what it adds to the gateware, against counts made another way."""

import numpy as np
import pytest
from nearflash.contract import ConfigError, DeviceConfig, TableSpec
from nearflash.contract.modelled import Modelled
from nearflash.contract.row_cache import with_row_cache
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place

ONE_DIE = DeviceConfig.preset("paper", channels=1, dies=1)
FOUR = DeviceConfig.preset("paper", channels=2, dies=2)
ROWS_A_PAGE = 32  # of 128 B


def cached(config, mib=1.0):
    """With a row cache for rows of 128 B."""
    return with_row_cache(config, mib, 128)


def lookups(config, rows, commands, modelled=None, depth=1, **latencies):
    """Timeline of LOOKUPs with one bag each, on a table of ``rows`` rows of 128 B."""
    device = Simulator(config, place(config, [TableSpec(rows, 32)]), depth, modelled=modelled, **latencies)
    return device.run(Batch.of([(np.array(bag, np.int64), np.zeros(1, np.int64))]) for bag in commands)


def reads(timeline):
    return sum(v for k, v in timeline.counters.items() if k.endswith("reads_count"))


def test_a_large_cache_reads_each_row_once():
    """More lines than rows, a command at a time: what an earlier command asked for is there, but for a row that came last
    and was not yet written when the next command asked for it."""
    rng = np.random.default_rng(0)
    commands = [rng.choice(400, 6, replace=False) for _ in range(60)]
    out = lookups(cached(FOUR), 400, commands)
    seen, again = set(), 0
    for bag in commands:
        again += sum(int(r) in seen for r in bag)
        seen.update(int(r) for r in bag)
    hits = out.counters["cache_hits_count"]
    assert 100 < again - 4 <= hits <= again
    assert reads(out) == 360 - hits
    assert out.counters["cache_kept_count"] <= len(seen)


def test_a_hit_takes_the_drams_time_and_no_flash():
    """A row from flash takes C_EV = 2838 cycles in its die; from the cache what the DRAM takes, so a slower one shows."""
    slow = lookups(ONE_DIE, 64, [[5], [5]])
    first, hit = lookups(cached(ONE_DIE), 64, [[5], [5]]).latency
    assert first == slow.latency[0] + 3  # the map's line is read, and the row; its tags are looked at
    assert 2838 - 70 < slow.latency[1] - hit < 2838
    later = lookups(cached(ONE_DIE), 64, [[5], [5]], dram_latency=130).latency[1]
    assert later - hit == 100


def test_rows_asked_for_often_survive_a_scan():
    """24 rows that come again and again, among rows that come once, in a cache of 64 lines. With the least recently used
    dropped whatever comes, none would survive: 60 others pass between two of their visits."""
    hot, rounds = list(range(24)), 20
    commands, cold = [hot] * 6, iter(range(ROWS_A_PAGE, 4000))
    for _ in range(rounds - 6):
        commands += [hot] + [[next(cold) for _ in range(15)] for _ in range(4)]
    out = lookups(cached(ONE_DIE, 64 * 128 / 2**20), 4000, commands)
    assert 24 * (rounds - 9) <= out.counters["cache_hits_count"] <= 24 * (rounds - 1)


def test_a_cache_of_pages_answers_a_pages_other_rows():
    """The first row of a page brings all of it, over the bus: 4096 B instead of 128 B."""
    commands = [[r] for r in (0, 1, 31, 2, 32, 33)]
    page = lookups(ONE_DIE, 64, commands, Modelled(page_cache_mib=1))
    row = lookups(cached(ONE_DIE), 64, commands)
    assert (reads(page), page.counters["cache_hits_count"]) == (2, 4)
    assert (reads(row), row.counters["cache_hits_count"]) == (6, 0)
    beat = ONE_DIE.bus_beat_q16 / 65536
    moved = (4096 - 128) // ONE_DIE.beat_bytes * beat
    assert page.latency[0] - row.latency[0] == pytest.approx(moved, abs=1)
    assert page.counters["cache_kept_count"] == 2


def test_what_is_off_changes_nothing():
    rng = np.random.default_rng(2)
    commands = [rng.integers(0, 500, 20) for _ in range(30)]
    plain = lookups(FOUR, 500, commands, None, depth=4)
    got = lookups(FOUR, 500, commands, Modelled(), depth=4)
    assert got.completed.tolist() == plain.completed.tolist()
    assert got.counters == plain.counters
    assert "cache_hits_count" not in plain.counters


@pytest.mark.parametrize(("values", "says"), [
    ({"page_cache_mib": -1}, "page_cache_mib = -1: must be from 0"),
    ({"page_cache_mib": float("nan")}, "page_cache_mib = nan")])
def test_limits(values, says):
    with pytest.raises(ConfigError, match=says):
        Modelled(**values)


def test_a_cache_of_less_than_a_set():
    with pytest.raises(ConfigError, match=r"page_cache_mib = 0.0005: must hold at least 8 lines of 4096 bytes"):
        lookups(ONE_DIE, 64, [[0]], Modelled(page_cache_mib=0.0005))
    with pytest.raises(ConfigError, match=r"page_cache_mib = 1: must be 0 .off. on a device with a row cache"):
        lookups(cached(ONE_DIE), 64, [[0]], Modelled(page_cache_mib=1))
