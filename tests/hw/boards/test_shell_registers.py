"""The shell's registers, and the reset that they ask for."""

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.shell import SHELL_MAGIC, shell_registers
from nearflash_hw.boards.shell_registers import ShellRegisters
from nearflash_hw.primitives.axi_lite import OKAY, SLVERR
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models.nvme_host import AxilMaster

TINY = DeviceConfig.preset("tiny")
AT = {r.name: r.offset for r in shell_registers(TINY)}
REQUEST, FORCE = 1, 2


def play(scenario, stall=0.0):
    dut, done = reused(ShellRegisters, TINY), []

    async def process(ctx):
        await scenario(ctx, dut, AxilMaster(dut.axil, 5, stall))
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=4000)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_what_it_is(stall):
    async def scenario(ctx, dut, axil):
        for name, value in (("magic", SHELL_MAGIC), ("version", 1), ("design_id", TINY.design_id), ("reset", 0),
                            ("status", 0)):
            assert await axil.read(ctx, AT[name]) == (value, OKAY)
            if name != "reset":
                assert await axil.write(ctx, AT[name], 0xFFFF_FFFF) == OKAY
                assert await axil.read(ctx, AT[name]) == (value, OKAY)
        for offset in (0x14, 0x40, 0xFFC):
            assert await axil.read(ctx, offset) == (0, SLVERR)
            assert await axil.write(ctx, offset, 1) == SLVERR
        assert await axil.write(ctx, AT["reset"], REQUEST, strb=1) == SLVERR
        assert (ctx.get(dut.away), ctx.get(dut.closed), ctx.get(dut.reset)) == (0, 0, 0)

    play(scenario, stall)


def outputs(ctx, dut):
    return ctx.get(dut.away), ctx.get(dut.closed), ctx.get(dut.reset)


@pytest.mark.parametrize("busy", ["host_busy", "dram_busy"])
def test_a_reset_waits_for_the_ports(busy):
    async def scenario(ctx, dut, axil):
        ctx.set(getattr(dut, busy), 1)
        status = 0b010 if busy == "host_busy" else 0b100
        assert await axil.read(ctx, AT["status"]) == (status, OKAY)
        await axil.write(ctx, AT["reset"], REQUEST)
        await ctx.tick().repeat(20)
        assert outputs(ctx, dut) == (1, 1, 0)
        assert await axil.read(ctx, AT["status"]) == (status, OKAY)
        ctx.set(getattr(dut, busy), 0)
        await ctx.tick().repeat(2)
        assert outputs(ctx, dut) == (1, 1, 1)
        assert await axil.read(ctx, AT["status"]) == (1, OKAY)
        await ctx.tick().repeat(20)
        assert outputs(ctx, dut) == (1, 1, 1)  # held
        await axil.write(ctx, AT["reset"], 0)
        await ctx.tick().repeat(2)
        assert outputs(ctx, dut) == (0, 0, 0)
        assert await axil.read(ctx, AT["status"]) == (0, OKAY)

    play(scenario)


def test_force_does_not_wait_and_needs_a_request():
    async def scenario(ctx, dut, axil):
        ctx.set(dut.host_busy, 1)
        await axil.write(ctx, AT["reset"], FORCE)
        await ctx.tick().repeat(5)
        assert outputs(ctx, dut) == (0, 0, 0)
        await axil.write(ctx, AT["reset"], REQUEST | FORCE)
        await ctx.tick().repeat(3)
        assert outputs(ctx, dut) == (1, 1, 1)
        assert await axil.read(ctx, AT["status"]) == (0b011, OKAY)

    play(scenario)


def test_a_request_that_is_withdrawn_early_still_resets():
    async def scenario(ctx, dut, axil):
        ctx.set(dut.dram_busy, 1)
        await axil.write(ctx, AT["reset"], REQUEST)
        await axil.write(ctx, AT["reset"], 0)
        await ctx.tick().repeat(5)
        assert outputs(ctx, dut) == (1, 1, 0)
        ctx.set(dut.dram_busy, 0)
        seen = []
        for _ in range(5):
            await ctx.tick()
            seen.append(outputs(ctx, dut))
        assert seen.count((1, 1, 1)) == 1
        assert seen[-1] == (0, 0, 0)

    play(scenario)
