"""The entries of a descriptor that has none of its own."""

import random

import pytest
from nearflash_hw.tensor.one_entry import OneEntry
from nearflash_sim.bench import StreamSink, reused, simulate


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_every_lane_has_the_scale_once(lanes, stall):
    """Descriptor after descriptor, with the ends of what a scale can be."""
    dut, rng = reused(OneEntry, lanes), random.Random(lanes)
    sink, expected = StreamSink(dut.o, stall, 1), []
    scales = [(0, 0), ((1 << len(dut.mult)) - 1, (1 << len(dut.shift)) - 1),
              *((rng.getrandbits(len(dut.mult)), rng.getrandbits(len(dut.shift))) for _ in range(4))]

    async def descriptors(ctx):
        for mult, shift in scales:
            ctx.set(dut.mult, mult)
            ctx.set(dut.shift, shift)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            expected.extend([{"bias": 0, "mult": mult, "shift": shift}] * lanes)
            while len(sink.items) < len(expected):
                await ctx.tick()
            await ctx.tick().repeat(rng.randint(1, 5))
            assert sink.items == expected

    simulate(dut, [descriptors, sink], until=lambda: len(sink.items) == lanes * len(scales), max_cycles=600)
    assert sink.items == expected
