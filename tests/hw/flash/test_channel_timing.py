"""Cycles of the channel against the closed form (C_EV) and the throughput bounds of the paper's parameters."""

import random
from dataclasses import replace

import pytest
from flash_bench import erase, expect_read, filled, program, random_page, read, run_channel
from nearflash.contract import DeviceConfig
from nearflash.reference.flash import read_cycles
from nearflash_hw.flash import Channel
from nearflash_sim.models import MemoryModel


def paper(dies: int, **flash) -> DeviceConfig:
    """The paper's timing; geometry cut to what the test touches."""
    return DeviceConfig.preset("paper", channels=1, dies=dies, blocks=2, pages=4, **flash)


@pytest.mark.parametrize("preset", ["paper", "tiny", "mqsim", "ull"])
@pytest.mark.parametrize("path", ["lookup", "block"])
@pytest.mark.parametrize("dies", [1, 2])
def test_idle_die_takes_c_ev_and_a_constant(preset, path, dies):
    config = DeviceConfig.preset(preset, channels=1, dies=dies, blocks=2, pages=4)
    if preset == "mqsim":
        config = replace(config, clock_mhz=20.0)  # the same shape in fewer cycles
    nand = filled(config, random.Random(1), 0, {0: 1})
    for beats in (1, 8, config.page_beats):
        r = run_channel(config, nand=nand, memory=MemoryModel(config.beat_bytes, latency=30), settle=5,
                        **{f"{path}s": [read(3, dies - 1, 0, 0, 0, beats)]})
        end = (r.lookup_cycles if path == "lookup" else r.block_cycles)[0]
        took = end - 1  # the command is transferred in the bench's cycle 1; a command phase of 0 takes a cycle too
        assert took - read_cycles(config, beats * config.beat_bytes) == Channel.READ_OVERHEAD - (config.t_command > 0)


def test_paper_vector_cycles():
    config = paper(1)
    assert [read_cycles(config, n) for n in (128, 256, 4096)] == [2838, 2875, 4000]


def test_change_read_column_moves_any_range_of_the_held_page_without_tr():
    config = paper(1, t_read_ns=14_000, t_ccs_ns=300)
    nand = filled(config, random.Random(3), 0, {0: 2, 1: 1})
    memory = MemoryModel(config.beat_bytes, latency=10)
    # the page, three other windows of it, another page and back: tR is paid for the 1st, 5th and 6th
    lookups = [read(0, 0, 0, 0, 100, 8), read(1, 0, 0, 0, 3, 5), read(2, 0, 0, 0, 255, 5), read(3, 0, 0, 0, 100, 8),
               read(4, 0, 0, 1, 100, 8), read(5, 0, 0, 0, 100, 8)]
    r = run_channel(config, nand=nand, lookups=lookups, memory=memory)
    assert r.lookups == [expect_read(nand, 0, c) for c in lookups]
    assert r.reads_started == 3
    steps = [b - a for a, b in zip(r.lookup_cycles, r.lookup_cycles[1:], strict=False)]
    full = read_cycles(config, 128)
    for step in steps[:3]:
        assert config.t_ccs < step < config.t_ccs + 8 * 5 + 40
    for step in steps[3:]:
        assert 0 <= step - full < 20
    # off: every READ pays
    config = paper(1)
    r = run_channel(config, nand=nand, lookups=lookups, memory=memory)
    assert r.reads_started == 6


def test_a_program_or_erase_or_error_gives_the_page_register_up():
    config = DeviceConfig.preset("tiny", blocks=4, pages=4, t_read_ns=500, t_program_ns=900, t_erase_ns=1_500, t_ccs_ns=100)
    rng = random.Random(4)
    nand = filled(config, rng, 0, {0: 1, 1: 1})
    page = random_page(config, rng)
    window = (0, 0, 0, 2, 4)  # die, block, page, column, beats
    r = run_channel(config, nand=nand, blocks=[read(0, *window), program(1, 0, 0, 1), read(2, *window), erase(3, 0, 1),
                                               read(4, *window), read(5, *window)], pages=[page])
    assert [p for p in r.blocks] == [expect_read(nand, 0, read(t, *window)) for t in (0, 2, 4, 5)]
    assert r.reads_started == 3
    bad = config.layout.flash + 16
    memory = MemoryModel(config.beat_bytes, latency=5, fail=lambda a: a == bad)
    r = run_channel(config, nand=nand, memory=memory, lookups=[read(0, *window), read(1, *window), read(2, 0, 0, 0, 8, 4),
                                                               read(3, 0, 0, 0, 8, 4)])
    assert [error for *_, error in r.lookups] == [1, 1, 0, 0]
    assert r.reads_started == 3  # the third READ pays tR again, the fourth doesn't


def spacing(config: DeviceConfig, beats: int, warm: int, n: int) -> float:
    """Cycles per read in steady state, ``n`` reads after ``warm``, all queued at once over all dies and pages."""
    nand = filled(config, random.Random(2), 0, {0: 4})
    dies = config.flash.dies
    lookups = [read(t, t % dies, 0, t // dies % 4, 0, beats) for t in range(warm + n)]
    r = run_channel(config, nand=nand, lookups=lookups, memory=MemoryModel(config.beat_bytes, latency=30),
                    max_cycles=60_000, settle=20)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    return (r.lookup_cycles[warm + n - 1] - r.lookup_cycles[warm - 1]) / n


@pytest.mark.parametrize("dies", [1, 2, 4])
def test_vectors_reach_the_flash_bound(dies):
    config = paper(dies)
    bound = max(config.read_cycles_per_vector(128) / dies, config.bus_cycles(128))
    assert spacing(config, 128 // config.beat_bytes, dies, 2 * dies) <= 1.02 * bound


def test_whole_pages_reach_the_bus_bound():
    config = paper(4)
    assert config.bus_cycles(4096) == 1200
    assert spacing(config, config.page_beats, 4, 4) <= 1.03 * 1200


def test_erase_and_program_take_their_array_time():
    config = DeviceConfig.preset("tiny", channels=1, dies=1)
    page = random_page(config, random.Random(3))
    r = run_channel(config, blocks=[erase(0, 0, 0)], settle=5)
    assert 0 <= r.done_cycles[0] - config.t_erase <= 12
    nand = filled(config, random.Random(3), 0, {0: 1})
    r = run_channel(config, nand=nand, blocks=[program(0, 0, 0, 1)], pages=[page], settle=5)
    assert r.dones == [(0, 0)]
    raw = config.flash.page_bytes + config.flash.oob_bytes
    assert 0 <= r.done_cycles[0] - config.t_program - config.bus_cycles(raw) <= 15


def test_a_slow_dram_only_delays():
    config = DeviceConfig.preset("tiny", channels=1, dies=1, t_read_ns=100)
    nand = filled(config, random.Random(4), 0, {0: 1})
    c = read(0, 0, 0, 0, 0, 8)
    r = run_channel(config, nand=nand, lookups=[c], memory=MemoryModel(8, latency=200))
    assert r.lookups == [expect_read(nand, 0, c)]
    assert r.lookup_cycles[0] > 200


def test_a_fast_bus_moves_a_beat_per_cycle():
    config = DeviceConfig.preset("tiny", channels=1, dies=1, bus_page_ns=100)
    nand = filled(config, random.Random(5), 0, {0: 1})
    ends = []
    for beats in (4, 44):
        c = read(0, 0, 0, 0, 0, beats)
        r = run_channel(config, nand=nand, lookups=[c], settle=5)
        assert r.lookups == [expect_read(nand, 0, c)]
        ends.append(r.lookup_cycles[0])
    assert ends[1] - ends[0] == 40
