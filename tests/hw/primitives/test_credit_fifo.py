# amaranth: UnusedElaboratable=no
import random
from collections import deque

import pytest
from nearflash_hw.primitives.credit_fifo import CreditFifo
from nearflash_sim.bench import StreamSink, simulate


@pytest.mark.parametrize(("depth", "latency"), [(2, 1), (4, 3), (16, 5), (16, 20)])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_a_pipeline_that_cannot_stall_never_overflows(depth, latency, stall):
    """Whatever entered on a credit comes out, in order; with a taker, as fast as the credits go round."""
    dut, rng, number = CreditFifo(8, depth), random.Random(depth), 120
    pipe, entered, cycles = deque([None] * latency), [], []
    sink = StreamSink(dut.o, stall, seed=1)

    async def process(ctx):
        while True:
            go = ctx.get(dut.credit) and len(entered) < number and rng.random() > stall / 2
            ctx.set(dut.spend, int(go))
            item = None
            if go:
                item = rng.getrandbits(8)
                entered.append(item)
            pipe.append(item)
            out = pipe.popleft()
            ctx.set(dut.push, int(out is not None))
            ctx.set(dut.payload, out or 0)
            cycles.append(ctx.get(dut.idle))
            await ctx.tick()

    simulate(dut, [process, sink], until=lambda: len(sink.items) == number, max_cycles=20_000)
    assert sink.items == entered
    assert cycles[0] == 1
    assert cycles[-1] == 1
    assert not all(cycles)
