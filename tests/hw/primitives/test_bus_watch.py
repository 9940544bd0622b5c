# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash_hw.primitives.bus_watch import BusWatch
from nearflash_sim.bench import simulate


@pytest.mark.parametrize("cycles", [1, 2, 13, 64])
def test_silent_after_as_many_cycles_in_which_something_is_owed_and_nothing_moves(cycles):
    dut, rng, seen = BusWatch(cycles), random.Random(cycles), []

    async def process(ctx):
        waited = 0
        await ctx.tick()
        for _ in range(100 * cycles):
            owed, progress = rng.random() < 1 - 0.3 / cycles, rng.random() < 0.5 / cycles
            ctx.set(dut.owed, owed)
            ctx.set(dut.progress, progress)
            await ctx.tick()
            waited = waited + 1 if owed and not progress else 0
            seen.append((waited > cycles, ctx.get(dut.silent)))
            if waited > cycles:
                break

    simulate(dut, [process], until=lambda: bool(seen) and seen[-1][0], max_cycles=100 * cycles + 10)
    assert seen[-1] == (True, 1)
    assert not any(silent for _, silent in seen[:-1])


def test_a_watch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cycles = 0"):
        BusWatch(0)
