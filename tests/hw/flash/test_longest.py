"""The longest queue first: the choice by its rule, the counts that it goes by, and a channel that is done sooner for it."""

import random
from dataclasses import replace

import pytest
from amaranth.lib import data
from flash_bench import erase, expect_read, filled, program, random_page, read, run_channel
from nearflash.contract import DeviceConfig
from nearflash_hw.flash import Channel
from nearflash_hw.flash.longest import PERIOD, LongestFirst
from nearflash_hw.flash.queue import DieQueues
from nearflash_hw.synthesis.netlist import subtree
from nearflash_sim.bench import StreamSource, simulate

LAYOUT = data.StructLayout({"die": 2, "v": 12})


def choose(want, counts, due):
    """By the rule: of the sets of those that ``want`` a turn and are ``due`` one, which has it."""
    return max(sorted(want & due or want), key=lambda d: counts[d])  # the first of equals


@pytest.mark.parametrize("dies", [2, 4, 8])
def test_the_choice_is_the_longest_among_those_that_are_due(dies):
    """Counts from few values, so that many are equal, and at their ends; turns that are taken late or not at all."""
    rng, dut, most = random.Random(dies), LongestFirst(dies, 255), 255
    seen = {"taken": 0, "cycles": 0}

    async def run(ctx):
        due, before = set(), [0] * dies
        for _ in range(600):
            want = {d for d in range(dies) if rng.random() < 0.5}
            counts = [rng.choice((0, 1, 7, most - 1, most)) for _ in range(dies)]
            ctx.set(dut.want, sum(1 << d for d in want))
            for d in range(dies):
                ctx.set(dut.waiting[d], counts[d])
            taken = bool(want) and rng.random() < 0.6
            ctx.set(dut.take, taken)
            if want:
                die = choose(want, before, due)
                assert ctx.get(dut.choice) == die
                seen["taken"] += taken
                if taken:
                    due = (due | (want if seen["taken"] % PERIOD == 0 else set())) - {die}
            await ctx.tick()
            seen["cycles"] += 1
            before = counts

    simulate(dut, [run], until=lambda: seen["cycles"] == 600, max_cycles=700)
    assert seen["taken"] > 150


@pytest.mark.parametrize("dies", [2, 4, 8])
def test_none_is_passed_over_more_often_than_said(dies):
    """One die with an empty queue begins to want a turn at any time; all others have full ones and always want one."""
    rng, dut, longest = random.Random(dies), LongestFirst(dies, 100), []

    async def run(ctx):
        for d in range(dies):
            ctx.set(dut.waiting[d], 0 if d == dies - 1 else 100)
        for _ in range(60):
            ctx.set(dut.want, (1 << (dies - 1)) - 1)
            ctx.set(dut.take, 1)
            await ctx.tick().repeat(rng.randrange(1, 2 * PERIOD))
            ctx.set(dut.want, (1 << dies) - 1)
            passed = 0
            while ctx.get(dut.choice) != dies - 1:
                passed += 1
                await ctx.tick()
            await ctx.tick()
            longest.append(passed)

    simulate(dut, [run], until=lambda: len(longest) == 60, max_cycles=60 * 5 * PERIOD)
    assert PERIOD - 4 < max(longest) <= PERIOD + dies - 2


def test_impossible_choices_are_refused():
    for dies, most in ((1, 4), (2, 0)):
        with pytest.raises(ValueError, match=f"dies = {dies}, most = {most}"):
            LongestFirst(dies, most)


def test_a_queue_counts_what_waits_for_each_die():
    rng = random.Random(3)
    dut = DieQueues(LAYOUT, 4, 12, counted=True)
    src = StreamSource(dut.i, [{"die": rng.randrange(4), "v": v} for v in range(80)], 0.3, seed=1)
    counts, seen, got = [0] * 4, [], []

    async def watch(ctx):
        while True:
            _, _, push, ready, item, pop, pop_ready, die, waiting = await ctx.tick().sample(
                dut.i.valid, dut.i.ready, dut.i.payload, dut.pop.valid, dut.pop.ready, dut.pop.payload, dut.waiting)
            assert list(waiting) == counts
            seen.append(tuple(counts))
            counts[item.die] += push and ready
            counts[die] -= pop and pop_ready

    async def consume(ctx):
        while True:
            await ctx.tick().repeat(rng.choice((1, 1, 40)))
            pending = ctx.get(dut.pending)
            if not pending:
                continue
            ctx.set(dut.pop.payload, rng.choice([d for d in range(4) if pending >> d & 1]))
            ctx.set(dut.pop.valid, 1)
            await ctx.tick().until(dut.pop.ready)
            ctx.set(dut.pop.valid, 0)
            ctx.set(dut.o.ready, 1)
            await ctx.tick().until(dut.o.valid)
            ctx.set(dut.o.ready, 0)
            got.append(1)

    simulate(dut, [watch, src, consume], until=lambda: len(got) == 80, max_cycles=8000)
    assert counts == [0] * 4
    assert max(map(sum, seen)) == 12


def configured(on: bool, **flash: int) -> DeviceConfig:
    """tiny with shorter times, so that a bus with four dies is what they wait for."""
    c = DeviceConfig.preset("tiny", channels=1, dies=4, blocks=4, pages=4, **{"t_read_ns": 1_500, "t_program_ns": 900,
                                                                          "t_erase_ns": 1_500, **flash})
    return replace(c, lookup=replace(c.lookup, tags=64, longest_queue_first=on))


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_channels_answers_are_exact_beside_block_io(stall):
    config, rng = configured(True), random.Random(7)
    nand = filled(config, rng, 0, {0: 4, 1: 0, 2: 2})
    lookups = [read(t, min(rng.randrange(8), 3), rng.choice([0, 0, 2]), rng.randrange(2), rng.randrange(50),
                    rng.randint(1, 8)) for t in range(60)]
    blocks, pages = [], []
    for die in range(4):
        blocks += [read(2 * die, die, 0, rng.randrange(4), 0, config.raw_page_beats), program(2 * die + 1, die, 1, 0),
                   erase(2 * die + 32, die, 3), read(2 * die + 33, die, 0, 0, 3, 5)]
        pages.append(random_page(config, rng))
    r = run_channel(config, nand=nand, lookups=lookups, blocks=blocks, pages=pages, stall=stall, seed=3, max_cycles=60_000)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    assert sorted(r.blocks) == sorted(expect_read(nand, 0, c) for c in blocks if c["op"].value == 0)
    assert sorted(r.dones) == sorted((2 * d + k, 0) for d in range(4) for k in (1, 32))


def test_the_die_with_most_to_do_is_done_sooner():
    """Die 3 has 12 reads of 32 beats, the others four each, all asked for at once: tR is 150 cycles, a transfer 50 and those
    of the others keep the bus for 150. In turn, die 3 waits for three of them each time while they have work; when it goes
    first it waits for at most one that is under way."""
    lookups = [read(t, 3 if t % 2 else t // 2 % 3, 0, t % 4, 0, 32) for t in range(24)]
    ends = {}
    for on in (False, True):
        config = configured(on)
        nand = filled(config, random.Random(1), 0, {0: 4})
        r = run_channel(config, nand=nand, lookups=lookups)
        assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
        ends[on] = r.lookup_cycles[-1]
    assert ends[True] < ends[False] - 50


def test_a_channel_without_it_has_nothing_of_it():
    texts = [subtree(Channel(configured(on)), "") for on in (False, True)]
    assert [".bus.longest" in text for text in texts] == [False, True]
    assert ["waiting" in text for text in texts] == [False, True]
