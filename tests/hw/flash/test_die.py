# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.flash.die import Die
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, simulate

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize("array_cycles", [1, 500])
@pytest.mark.parametrize("ccs", [0, 300])
def test_phases_in_their_order_and_array_times_to_the_cycle(array_cycles, ccs):
    """A bus and an array that answer when they like: every phase is wanted once, in ONFI's order; the array phase takes tR,
    tPROG or tERASE exactly, or as long as the emulated array does."""
    config = replace(TINY, flash=replace(TINY.flash, t_ccs_ns=ccs))
    dut, rng = Die(config), random.Random(ccs + array_cycles)
    commands = [{"op": rng.choice([FlashOp.READ, FlashOp.READ, FlashOp.PROGRAM, FlashOp.ERASE]), "die": 0,
                 "block": rng.randrange(2), "page": rng.randrange(2), "column": 0, "beats": 1, "tag": k % 8}
                for k in range(40)]
    done, phases, now = StreamSink(dut.done, 0.3, seed=1), [], [0]
    finished = []

    async def clock(ctx):
        while True:
            await ctx.tick()
            now[0] += 1

    async def phase(ctx, k, name, pulse):
        while not ctx.get(getattr(dut, name)):
            for other in ("want_command", "want_in", "want_out"):
                assert other == name or not ctx.get(getattr(dut, other))
            await ctx.tick()
        await ctx.tick().repeat(rng.randint(1, 5))
        ctx.set(pulse, 1)
        await ctx.tick()
        ctx.set(pulse, 0)
        phases.append((k, name))

    async def drive(ctx):
        held = None
        for k, c in enumerate(commands):
            ctx.set(dut.command.payload, {"command": c, "path": k % 2})
            ctx.set(dut.command.valid, 1)
            while not ctx.get(dut.command.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.command.valid, 0)
            error = rng.random() < 0.2

            await phase(ctx, k, "want_command", dut.command_done)
            if c["op"] == FlashOp.PROGRAM:
                await phase(ctx, k, "want_in", dut.in_done)
            begun = now[0]
            while not ctx.get(dut.job.valid):
                await ctx.tick()
            assert ctx.get(dut.job.payload.block) == c["block"]
            ctx.set(dut.job.ready, 1)
            await ctx.tick()
            ctx.set(dut.job.ready, 0)
            await ctx.tick().repeat(array_cycles)
            ctx.set(dut.job_done, 1)
            ctx.set(dut.job_error, error)
            await ctx.tick()
            ctx.set(dut.job_done, 0)
            over = now[0]
            row = (c["block"], c["page"])
            hit = ccs and held == row and c["op"] == FlashOp.READ
            wait = config.t_ccs if hit else {FlashOp.READ: config.t_read, FlashOp.PROGRAM: config.t_program,
                                             FlashOp.ERASE: config.t_erase}[c["op"]]
            held = row if c["op"] == FlashOp.READ and not error else None
            if c["op"] == FlashOp.READ:
                while not ctx.get(dut.want_out):
                    await ctx.tick()
                ended = now[0]
                assert ctx.get(dut.error) == error
                assert ctx.get(dut.path) == k % 2
                await phase(ctx, k, "want_out", dut.out_started)
                await ctx.tick().repeat(rng.randint(1, 4))
                ctx.set(dut.out_done, 1)
                await ctx.tick()
                ctx.set(dut.out_done, 0)
            else:
                while not ctx.get(dut.done.valid):
                    await ctx.tick()
                ended = now[0]
                while len(done.items) < sum(x["op"] != FlashOp.READ for x in commands[:k + 1]):
                    await ctx.tick()
                assert done.items[-1] == {"tag": c["tag"], "error": int(error)}
            assert ended == max(begun + wait, over + 1), (c, hit)
        finished.append(True)

    simulate(dut, [clock, done, drive], until=lambda: bool(finished), max_cycles=400_000)
    expected = []
    for k, c in enumerate(commands):
        expected += [(k, "want_command")] + [(k, "want_in")] * (c["op"] == FlashOp.PROGRAM)
        expected += [(k, "want_out")] * (c["op"] == FlashOp.READ)
    assert phases == expected
