# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.lookup.pooling.touched import Touched
from nearflash_sim.bench import simulate


@pytest.mark.parametrize("seed", range(4))
def test_bits_against_a_set(seed):
    """Setting and clearing at random, as their rules allow; nothing is set after the reset (which ends a former life)."""
    dut, rng, model, cycles = Touched(DeviceConfig.preset("tiny")), random.Random(seed), set(), []
    size = 1 << dut.bits

    async def process(ctx):
        last = []  # what was set or cleared a cycle ago: neither is done to it now
        for cycle in range(2 * size):
            at = cycle if cycle < size else rng.randrange(size)  # first of all, every bit is seen
            clear_at = rng.randrange(size)
            put, clear = (rng.random() < 0.4 and cycle >= size for _ in range(2))
            put, clear = put and at not in last, clear and clear_at not in (at, *last)
            for port, value in ((dut.set_at, at), (dut.set, put), (dut.clear_at, clear_at), (dut.clear, clear)):
                ctx.set(port, value)
            *_, sees, clear_sees = await ctx.tick().sample(dut.set_sees, dut.clear_sees)
            assert sees == (at in model)
            if clear_at not in last:
                assert clear_sees == (clear_at in model)
            if put:
                model.add(at)
            if clear:
                model.discard(clear_at)
            last = [x for x, done in ((at, put), (clear_at, clear)) if done]
            cycles.append(cycle)

    simulate(dut, [process], until=lambda: len(cycles) == 2 * size, max_cycles=3 * size)
