"""WRITE, FLUSH and TRIM in the simulator of the device's time against the RTL, alone, beside READs and beside lookups."""

from __future__ import annotations

from dataclasses import replace

import block_bench
import numpy as np
import pytest
from block_bench import MAPPED, ONE_DIE, opened
from nearflash.contract import DataError, DeviceConfig, FlashConfig, RowCacheConfig, TableSpec
from nearflash.data import BlockLoad
from nearflash.data.block_traces import FLUSH, READ, TRIM, WRITE
from nearflash_sim.small.device import LINES, LONGEST, SMALL
from nearflash_sim.timing.simulator import Simulator, Timeline
from nearflash_sim.timing.workload import place

BEHIND = 12  # a logical block behind the tables


def requests(depth: int, *given: tuple[int, int, int]) -> BlockLoad:
    """(kind, first, count) each."""
    kind, first, count = (np.array(column, np.int64) for column in zip(*given, strict=True))
    return BlockLoad(first, count, depth, kind=kind)


def writes(n: int, longest: int, depth: int) -> BlockLoad:
    """Of the same few blocks again and again."""
    rng = np.random.default_rng(n)
    counts = rng.integers(1, longest + 1, n)
    return requests(depth, *((WRITE, BEHIND + int(rng.integers(0, 20)), int(count)) for count in counts))


def mixed(n: int, share: float, depth: int, longest: int = 1) -> BlockLoad:
    """READs of the tables' blocks, of which every one is mapped, and WRITEs of others."""
    rng = np.random.default_rng(n)
    out = []
    for count in rng.integers(1, longest + 1, n).tolist():
        if rng.random() < share:
            out.append((WRITE, BEHIND + int(rng.integers(0, 40)), count))
        else:
            out.append((READ, int(rng.integers(0, MAPPED - count + 1)), count))
    return requests(depth, *out)


def both(config: DeviceConfig, blocks: BlockLoad, commands: int = 0, depth: int = 1, samples: int = 1, bag: int = 1
         ) -> tuple[Timeline, Timeline]:
    """Requests, and LOOKUPs of random bags, on the RTL and in the simulator; both as after a load of the tables."""
    with opened(config) as device:
        return block_bench.both(device, blocks, commands, depth, samples, bag)


def mean_latency(t: Timeline, chosen: np.ndarray) -> float:
    chosen = chosen[: len(t.block_submitted)]
    return float((t.block_completed - t.block_submitted)[chosen].mean())


def counters(t: Timeline, *names: str) -> dict[str, int]:
    return {k: v for k, v in t.counters.items() if any(n in k for n in names)}


def assert_same(rtl: Timeline, simulated: Timeline) -> None:
    """Submission and completion of every request, and every counter that the simulator has."""
    assert simulated.block_submitted.tolist() == rtl.block_submitted.tolist()
    assert simulated.block_completed.tolist() == rtl.block_completed.tolist()
    assert simulated.counters == {k: rtl.counters[k] for k in simulated.counters}


#: (WRITEs, logical blocks of the longest, in flight): alone, of several blocks, more blocks than slots, in a queue.
ALONE = [(6, 1, 1), (4, 4, 1), (20, 1, 4), (12, 3, 8), (6, 8, 2)]


@pytest.mark.parametrize(("n", "longest", "depth"), ALONE)
def test_no_cycle_off_on_one_die(n, longest, depth):
    rtl, simulated = both(ONE_DIE, writes(n, longest, depth))
    assert len(rtl.block_completed) == n
    assert counters(simulated, "programs") == counters(rtl, "programs")
    assert_same(rtl, simulated)


def test_one_of_each_kind_in_turn():
    """A FLUSH after nothing and after WRITEs, which the superblock reserves anew; READs of what was written, twice, and of
    what is unmapped, which touch no die."""
    blocks = requests(1, (FLUSH, 0, 0), (WRITE, 10, 3), (READ, 10, 3), (FLUSH, 0, 0), (WRITE, 11, 1), (READ, 11, 1),
                      (TRIM, 10, 2), (READ, 10, 3), (READ, 3, 2), (TRIM, 12, 1), (FLUSH, 0, 0), (READ, 10, 3))
    rtl, simulated = both(ONE_DIE, blocks)
    assert_same(rtl, simulated)
    assert simulated.block_pages == 3 + 1 + 1 + 2


def test_a_list_is_walked_beside_writes():
    """A long TRIM with WRITEs behind it: they take turns at the map."""
    rtl, simulated = both(ONE_DIE, requests(4, (TRIM, 100, 60), *[(WRITE, 20 + i, 2) for i in range(6)], (TRIM, 20, 8)))
    assert_same(rtl, simulated)


#: (requests, share of WRITEs, in flight, longest)
READS_TOO = [(30, 0.3, 1, 1), (60, 0.3, 4, 1), (60, 0.5, 8, 3), (60, 0.1, 15, 2)]


@pytest.mark.parametrize("config", [ONE_DIE, LINES], ids=["one line of the map", "lines at once"])
@pytest.mark.parametrize(("n", "share", "depth", "longest"), READS_TOO)
def test_reads_and_writes_of_one_die(config, n, share, depth, longest):
    """They take turns at the die, which a WRITE keeps for its tPROG, and at the host's bus."""
    rtl, simulated = both(config, mixed(n, share, depth, longest))
    assert len(rtl.block_completed) == n
    assert_same(rtl, simulated)


SEVERAL = pytest.mark.parametrize("config", [SMALL, LONGEST], ids=["two channels", "one channel"])


@SEVERAL
@pytest.mark.parametrize(("n", "longest", "depth"), ALONE)
def test_writes_to_several_dies(config, n, longest, depth):
    """Pages of several channels come from one write buffer, at a beat a cycle; those of one channel in their order. One
    array stores them all."""
    rtl, simulated = both(config, writes(n, longest, depth))
    assert_same(rtl, simulated)


@SEVERAL
@pytest.mark.parametrize(("n", "share", "depth", "longest"), [(200, 0.3, 4, 1), (200, 0.5, 8, 3), (300, 0.1, 15, 2)])
def test_reads_and_writes_of_several_dies(config, n, share, depth, longest):
    blocks = mixed(n, share, depth, longest)
    rtl, simulated = both(config, blocks)
    assert len(rtl.block_completed) == len(simulated.block_completed) == n
    assert simulated.block_completed.max() == pytest.approx(rtl.block_completed.max(), rel=0.005)
    for chosen in (blocks.kinds == READ, blocks.kinds == WRITE):
        assert mean_latency(simulated, chosen) == pytest.approx(mean_latency(rtl, chosen), rel=0.005)
    assert counters(simulated, "programs", "reads") == counters(rtl, "programs", "reads")


#: (LOOKUPs, in flight, samples, longest bag), (requests, share of WRITEs, in flight, longest)
BESIDE = [((12, 4, 16, 9), (200, 1.0, 1, 1)), ((40, 4, 16, 9), (400, 0.3, 4, 1)), ((80, 4, 1, 20), (400, 0.5, 4, 2))]


@pytest.mark.parametrize(("lookups", "given"), BESIDE)
@pytest.mark.parametrize("config", [ONE_DIE, SMALL, LONGEST], ids=["one die", "two channels", "one channel"])
def test_lookups_meanwhile(config, lookups, given):
    blocks = mixed(*given)
    rtl, simulated = both(config, blocks, *lookups)
    total, latency = (1e-5, 1e-4) if config is ONE_DIE else (0.01, 0.02)
    assert simulated.completed[-1] == pytest.approx(rtl.completed[-1], rel=total)
    assert len(simulated.block_completed) == pytest.approx(len(rtl.block_completed), rel=0.01)
    for chosen in (blocks.kinds == READ, blocks.kinds == WRITE):
        if chosen.any():
            assert mean_latency(simulated, chosen) == pytest.approx(mean_latency(rtl, chosen), rel=latency)


def test_slices_of_a_write_are_the_dies_and_the_buses():
    """Command, data in and tPROG of each of three pages, one after the other on their dies."""
    config, tables = paper()
    t = Simulator(config, tables, blocks=requests(1, (WRITE, 500, 3)), slices=100).run([])
    for c in range(3):
        command, moved, array = sorted((s for s in t.slices if s.track == f"channel{c}.die0"), key=lambda s: s.begin)
        assert [s.name for s in (command, moved, array)] == ["command block", "data in block", "array block"]
        assert command.end <= moved.begin < moved.end == array.begin
        assert array.end - array.begin == config.t_program
        assert moved.end - moved.begin == config.bus_cycles(config.raw_page_beats * config.beat_bytes) + 2
        assert [s.name for s in t.slices if s.track == f"channel{c}.bus"] == ["command block", "data in block"]


def paper() -> tuple[DeviceConfig, list[TableSpec]]:
    config = DeviceConfig.preset("paper")
    return config, place(config, [TableSpec(4096, 32)])


def test_a_write_alone_takes_its_die_and_its_bus():
    """Of the paper's device: data in over the bus, tPROG, and what the host and the map take."""
    config, tables = paper()
    far = [(WRITE, 500 + i, 1) for i in range(8)]
    t = Simulator(config, tables, blocks=requests(1, *far)).run([])
    latency = t.block_completed - t.block_submitted
    flash = config.t_program + config.bus_cycles(config.raw_page_beats * config.beat_bytes)
    assert flash < latency[-1] < flash * 1.05
    assert sum(counters(t, "programs").values()) == 8


def test_more_pages_than_the_log_holds_are_refused():
    config = DeviceConfig.preset("paper", channels=1, blocks=2, pages=64)
    tables = place(config, [TableSpec(64, 32)])
    blocks = requests(4, *[(WRITE, 10, 1)] * 128)
    with pytest.raises(DataError, match=r"pages written = 130: must be at most 128 .* log isn't cleaned.* refuses 2 of"):
        Simulator(config, tables, blocks=blocks).run([])


@pytest.mark.parametrize(("given", "changes", "message"), [
    ((WRITE, 0, 1), {}, "block written = 0: must be at least 128: those before are the tables'"),
    ((TRIM, 127, 2), {}, "block written = 127"),
    ((TRIM, 200, 0), {}, "trim count = 0: must be at least 1"),
    ((FLUSH, 0, 1), {}, "flush count = 1: must be 0"),
    ((4, 200, 1), {}, "block kind = 4"),
    ((WRITE, 200, 33), {}, r"block count = 33.*host\.mdts_pages \(32\)"),
    ((WRITE, 200, 1), {"flash": FlashConfig(planes=2)}, "flash.planes = 2: must be 1 with WRITEs"),
    ((WRITE, 200, 1), {"row_cache": RowCacheConfig(lines=64, ways=4)}, "row_cache.lines = 64: must be 0 with WRITEs"),
])
def test_what_is_not_simulated_is_refused(given, changes, message):
    config, tables = paper()
    config = replace(config, **changes)
    assert tables[0].pages(config) == 128
    with pytest.raises(DataError, match=message):
        Simulator(config, tables, blocks=requests(1, given))
