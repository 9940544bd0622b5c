import random

import pytest
from amaranth.sim import Simulator
from nearflash_hw.primitives.countdown import Countdown


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_busy_for_as_many_running_cycles_as_loaded(stall):
    rng = random.Random(3)
    dut = Countdown(6)
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    waits = [0, 1, 2, 63, *(rng.randrange(64) for _ in range(10))]
    ran = []

    async def process(ctx):
        for value in waits:
            ctx.set(dut.value, value)
            ctx.set(dut.load, 1)
            ctx.set(dut.run, rng.random() < 0.5)  # a load doesn't count, whether it runs or not
            await ctx.tick()
            ctx.set(dut.load, 0)
            ctx.set(dut.value, rng.randrange(64))
            count = 0
            for _ in range(2000):
                if not ctx.get(dut.busy):
                    break
                runs = rng.random() >= stall
                ctx.set(dut.run, runs)
                count += runs
                await ctx.tick()
            ran.append(count)
            ctx.set(dut.run, 1)
            await ctx.tick().repeat(3)
            assert not ctx.get(dut.busy)  # stays where it ended

    sim.add_testbench(process)
    sim.run()
    assert ran == waits


def test_a_load_replaces_what_was_left():
    dut = Countdown(6)
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def process(ctx):
        ctx.set(dut.run, 1)
        for value in (50, 2):
            ctx.set(dut.value, value)
            ctx.set(dut.load, 1)
            await ctx.tick()
        ctx.set(dut.load, 0)
        seen = []
        for _ in range(4):
            seen.append(ctx.get(dut.busy))
            await ctx.tick()
        assert seen == [1, 1, 0, 0]

    sim.add_testbench(process)
    sim.run()
