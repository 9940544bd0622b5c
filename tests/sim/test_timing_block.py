"""Block I/O in the simulator of the device's time against the RTL, alone and beside lookups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from block_bench import MAPPED, ONE_DIE, both, opened
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.data import BlockLoad
from nearflash_sim.small.device import SMALL, small_config
from nearflash_sim.timing.simulator import Simulator, Timeline
from nearflash_sim.timing.workload import Batch, place


@pytest.fixture(scope="module")
def one_die():
    with opened(ONE_DIE) as device:
        yield device


@pytest.fixture
def four_dies():
    """New each time: the turn at the read buffer's slots goes on from one load to the next."""
    with opened(SMALL) as device:
        yield device


def reads(rng: np.random.Generator, n: int, longest: int, depth: int) -> BlockLoad:
    count = rng.integers(1, longest + 1, n)
    return BlockLoad(rng.integers(0, MAPPED - count + 1), count, depth)


def read_latency(t: Timeline) -> float:
    return float((t.block_completed - t.block_submitted).mean())


def same_counters(simulated: Timeline, rtl: Timeline, *names: str) -> bool:
    return all(simulated.counters[k] == rtl.counters[k] for k in simulated.counters if any(n in k for n in names))


#: (READs, logical blocks of the longest, in flight): alone, of several blocks, more than there are tags, in a full queue.
ALONE = [(6, 1, 1), (4, 4, 1), (30, 1, 4), (40, 3, 8), (60, 1, 15), (6, 8, 2)]


@pytest.mark.parametrize(("n", "longest", "depth"), ALONE)
def test_no_cycle_off_on_one_die(one_die, n, longest, depth):
    """Submission and completion of every READ, and every counter."""
    rtl, simulated = both(one_die, reads(np.random.default_rng(n), n, longest, depth))
    assert len(rtl.block_completed) == n
    assert simulated.block_submitted.tolist() == rtl.block_submitted.tolist()
    assert simulated.block_completed.tolist() == rtl.block_completed.tolist()
    assert same_counters(simulated, rtl, "")


#: And LOOKUPs (commands, in flight, samples, longest bag) meanwhile.
BESIDE = [(4, 1, 5, 20), (4, 4, 16, 9), (3, 2, 24, 4)]


@pytest.mark.parametrize(("commands", "depth", "samples", "bag"), BESIDE)
@pytest.mark.parametrize(("n", "longest", "block_depth"), ALONE[1:4])
def test_lookups_and_reads_of_one_die(one_die, n, longest, block_depth, commands, depth, samples, bag):
    """They take turns at the die, at the map and at the host's bus both ways. No cycle is off."""
    rtl, simulated = both(one_die, reads(np.random.default_rng(n), n, longest, block_depth), commands, depth, samples, bag)
    assert len(rtl.block_completed) == len(simulated.block_completed) == n
    assert simulated.block_submitted.tolist() == rtl.block_submitted.tolist()
    assert simulated.block_completed.tolist() == rtl.block_completed.tolist()
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert same_counters(simulated, rtl, "")


@pytest.mark.parametrize(("n", "longest", "depth"), [(6, 1, 1), (4, 4, 1), (30, 1, 2), (30, 1, 4), (60, 1, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_no_cycle_off_on_several_channels(four_dies, n, longest, depth, seed):
    """Channels take turns at slots, the read buffer takes their beats in turn, and the host's bus one page after another."""
    rtl, simulated = both(four_dies, reads(np.random.default_rng(seed), n, longest, depth))
    assert simulated.block_submitted.tolist() == rtl.block_submitted.tolist()
    assert simulated.block_completed.tolist() == rtl.block_completed.tolist()
    assert same_counters(simulated, rtl, "")


@pytest.mark.parametrize(("n", "longest", "depth"), ALONE)
def test_reads_of_several_channels(four_dies, n, longest, depth):
    """Pages of several channels share the read buffer, at a beat a cycle."""
    rtl, simulated = both(four_dies, reads(np.random.default_rng(n), n, longest, depth))
    assert abs(simulated.block_completed[-1] - rtl.block_completed[-1]) <= 0.001 * rtl.block_completed[-1]
    assert read_latency(simulated) == pytest.approx(read_latency(rtl), rel=0.002)
    assert same_counters(simulated, rtl, "reads", "misses")


#: (LOOKUPs, in flight, samples, longest bag), (READs, longest, in flight), the share that their mean latency may be off:
#: one that comes a cycle earlier or later than a lookup waits for its tR or doesn't, and the next ones differ.
MIXED = [((12, 4, 16, 9), (200, 1, 1), 0.0001), ((12, 4, 16, 9), (150, 1, 4), 0.0001), ((12, 4, 16, 9), (150, 3, 8), 0.002),
         ((10, 2, 24, 4), (100, 1, 4), 0.0001), ((24, 4, 1, 20), (200, 1, 4), 0.01)]


@pytest.mark.parametrize(("lookups", "blocks", "share"), MIXED)
def test_lookups_and_reads_of_several_channels(four_dies, lookups, blocks, share):
    rtl, simulated = both(four_dies, reads(np.random.default_rng(1), *blocks), *lookups)
    assert simulated.completed[-1] == pytest.approx(rtl.completed[-1], rel=0.002)
    assert len(simulated.block_completed) == pytest.approx(len(rtl.block_completed), rel=0.005)
    assert read_latency(simulated) == pytest.approx(read_latency(rtl), rel=share)


def paper(**changes) -> tuple[DeviceConfig, list[TableSpec]]:
    config = DeviceConfig.preset("paper", **changes)
    return config, place(config, [TableSpec(4096, 32)])


def alone(config: DeviceConfig, tables: list[TableSpec], blocks: BlockLoad) -> Timeline:
    return Simulator(config, tables, blocks=blocks).run([])


def far_apart(config: DeviceConfig, n: int) -> np.ndarray:
    return np.arange(n) * 100 * config.t_read


def test_requests_at_their_times_are_those_of_an_idle_device():
    """Far apart, each takes as long as with one in flight, and is sent when the host has it."""
    config, tables = paper(dies=2)
    pages, one = np.arange(20) % 8, np.ones(20, np.int64)
    spread = alone(config, tables, BlockLoad(pages, one, 32, far_apart(config, 20)))
    in_turn = alone(config, tables, BlockLoad(pages, one, 1))
    assert spread.block_submitted.tolist() == far_apart(config, 20).tolist()
    latency = spread.block_completed - spread.block_submitted
    assert latency.tolist() == (in_turn.block_completed - in_turn.block_submitted).tolist()
    # The page's time on flash is what bench/block_io.py takes as the limit.
    assert config.t_read + config.bus_cycles(config.lba_bytes) < latency.min() < config.t_read * 2


def test_requests_at_once_are_those_of_a_full_queue():
    config, tables = paper(dies=4)
    rng = np.random.default_rng(3)
    first, one = rng.integers(0, 64, 300), np.ones(300, np.int64)
    at_once = alone(config, tables, BlockLoad(first, one, 32, np.zeros(300, np.int64)))
    in_flight = alone(config, tables, BlockLoad(first, one, 32))
    assert at_once.block_completed.tolist() == in_flight.block_completed.tolist()


def test_requests_end_with_the_commands():
    """None is sent after the last command's completion, and all that were sent are complete."""
    config, tables = paper()
    rows = np.random.default_rng(0).integers(0, 4096, (6, 40))
    batches = [Batch.of([(r, np.array([0]))]) for r in rows]
    many = BlockLoad(np.zeros(10_000, np.int64), np.ones(10_000, np.int64), 4)
    t = Simulator(config, tables, 2, blocks=many).run(batches)
    assert 0 < len(t.block_submitted) < 10_000
    assert t.block_submitted.max() <= t.completed[-1]
    assert (t.block_completed > t.block_submitted).all()
    lookups = Simulator(config, tables, 2).run(batches)
    assert lookups.completed[-1] < t.completed[-1]


def test_chunks_of_commands_change_nothing(monkeypatch):
    config, tables = paper(dies=2)
    rng = np.random.default_rng(2)
    batches = [Batch.of([(rng.integers(0, 4096, 20), np.array([0, 9]))]) for _ in range(9)]
    blocks = BlockLoad(rng.integers(0, 8, 500), np.ones(500, np.int64), 6)
    whole = Simulator(config, tables, 3, blocks=blocks).run(batches)
    monkeypatch.setattr("nearflash_sim.timing.simulator.CHUNK", 2)
    parts = Simulator(config, tables, 3, blocks=blocks).run(batches)
    assert parts.completed.tolist() == whole.completed.tolist()
    assert parts.block_completed.tolist() == whole.block_completed.tolist()


@pytest.mark.parametrize(("first", "count", "depth", "times", "message"), [
    ([0], [1], 64, None, r"block depth = 64.*queue_entries"),
    ([0], [1], 0, None, "block depth = 0"),
    ([0], [33], 1, None, r"block count = 33.*host\.mdts_pages \(32\)"),
    ([-1], [1], 1, None, "block = -1"),
    ([1 << 40], [1], 1, None, "block = 1099511627776.*logical blocks"),
    ([0, 0], [1, 1], 1, [5, 4], "times = 4: must not go back"),
])
def test_what_the_device_would_refuse_is_refused(first, count, depth, times, message):
    config, tables = paper()
    load = BlockLoad(np.array(first), np.array(count), depth, None if times is None else np.array(times))
    with pytest.raises(DataError, match=message):
        Simulator(config, tables, blocks=load)


def test_channels_that_wait_for_one_slot_take_turns_with_it():
    """A page has the slot from before it is on its channel's bus until its last beat went to the host, so pages of four
    channels follow one another."""
    config = small_config("one-slot", channels=4)
    config = replace(config, host=replace(config.host, read_slots=1))
    n = 200
    blocks = BlockLoad(np.random.default_rng(0).integers(0, 64, n), np.ones(n, np.int64), 15)
    done = Simulator(config, [], blocks=blocks).run([])
    each = config.bus_cycles(config.flash.page_bytes) + config.flash.page_bytes // config.beat_bytes
    assert len(done.block_completed) == n
    assert done.block_completed.max() > n * each
