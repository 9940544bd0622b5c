import numpy as np
import pytest
from conv_plans import random_conv
from nearflash.contract.tensor import TensorConfig, pack
from nearflash_hw.tensor.plan import conv_layout
from nearflash_hw.tensor.planner import ConvPlanner
from nearflash_sim.bench import reused, simulate
from nearflash_sim.bench.payload import reader

CONFIG, BEAT = TensorConfig(rows=8, columns=16, pixels=64, lanes=8), 8
AT = {"x": 0x40, "y": 0x2000000, "r": 0x3000000, "weights": 0x8000, "entries": 0x20000}


@pytest.mark.parametrize("shape", [
    {"size": (9, 11, 5), "outputs": 7, "kernel": (3, 2), "out": (9, 11), "tile": (4, 8), "pad": (2, 1), "pad_value": -127},
    {"size": (40, 64, 17), "outputs": 4 * 24, "kernel": (2, 2), "out": (20, 32), "tile": (2, 32), "stride": 2, "shuffle": 2,
     "wide": True, "residual": True, "group": 3},
    {"size": (1, 300, 130), "outputs": 9, "kernel": (1, 1), "out": (1, 300), "tile": (1, 64), "residual": False,
     "lookup": True}])
def test_plans_are_what_the_units_are_tested_with(shape):
    conv = random_conv(np.random.default_rng(1), **shape)
    d = conv.descriptor(AT)
    dut, plans = reused(ConvPlanner, CONFIG, BEAT), []

    async def process(ctx):
        ctx.set(dut.descriptor.as_value(), int.from_bytes(pack(d), "little"))
        await ctx.tick()
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        while not ctx.get(dut.done):
            await ctx.tick()
        await ctx.tick()
        plans.append(reader(conv_layout())(ctx.get(dut.plan.as_value())))

    simulate(dut, [process], until=lambda: bool(plans), max_cycles=300)
    assert plans[0] == conv.plan(CONFIG, BEAT, AT)
