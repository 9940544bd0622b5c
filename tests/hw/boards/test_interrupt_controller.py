"""The interrupt controller as PG099 describes an AXI INTC, and as PYNQ drives one."""

import random

import pytest
from nearflash.contract.shell import INTC_REGISTERS
from nearflash_hw.boards.interrupt_controller import InterruptController
from nearflash_hw.primitives.axi_lite import OKAY, SLVERR
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models.nvme_host import AxilMaster

ISR, IPR, IER, IAR, SIE, CIE, IVR, MER = (r.offset for r in INTC_REGISTERS)
NONE = 0xFFFF_FFFF


def play(scenario, stall=0.0):
    dut, done = reused(InterruptController), []

    async def process(ctx):
        axil = AxilMaster(dut.axil, 5, stall)

        async def write(offset, value):
            assert await axil.write(ctx, offset, value) == OKAY

        async def read(offset):
            value, response = await axil.read(ctx, offset)
            assert response == OKAY
            return value

        await scenario(ctx, dut, write, read)
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=60_000)


def test_offsets():
    assert (ISR, IPR, IER, IAR, SIE, CIE, IVR, MER) == (0, 4, 8, 0xC, 0x10, 0x14, 0x18, 0x1C)


def test_an_interrupt_as_pynq_takes_it():
    async def scenario(ctx, dut, write, read):
        await write(MER, 0)
        await write(MER, 3)
        await write(SIE, 1)
        assert ctx.get(dut.irq) == 0
        ctx.set(dut.input, 1)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.irq) == 1
        assert [await read(r) for r in (ISR, IPR, IVR)] == [1, 1, 0]
        await write(CIE, 1)
        assert (await read(IPR), await read(ISR), await read(IVR), ctx.get(dut.irq)) == (0, 1, NONE, 0)
        ctx.set(dut.input, 0)
        await write(IAR, 1)
        assert await read(ISR) == 0
        await write(SIE, 1)
        assert ctx.get(dut.irq) == 0

    play(scenario)


def test_a_level_comes_again_until_its_source_is_quiet_and_stays_until_acknowledged():
    async def scenario(ctx, dut, write, read):
        await write(MER, 3)
        await write(IER, 1)
        ctx.set(dut.input, 1)
        await ctx.tick().repeat(2)
        await write(IAR, 1)
        assert (await read(ISR), ctx.get(dut.irq)) == (1, 1)
        ctx.set(dut.input, 0)
        await ctx.tick().repeat(3)
        assert await read(ISR) == 1
        await write(IAR, 0)
        assert await read(ISR) == 1
        await write(IAR, NONE)
        assert (await read(ISR), ctx.get(dut.irq)) == (0, 0)

    play(scenario)


def test_before_hardware_interrupts_are_enabled_software_makes_them():
    async def scenario(ctx, dut, write, read):
        ctx.set(dut.input, 1)
        await write(IER, 1)
        await write(MER, 1)
        assert (await read(ISR), ctx.get(dut.irq)) == (0, 0)  # the input is not seen
        await write(ISR, 0)
        assert await read(ISR) == 0
        await write(ISR, 1)
        assert (await read(ISR), ctx.get(dut.irq)) == (1, 1)
        await write(ISR, 0)
        assert await read(ISR) == 1
        await write(IAR, 1)
        assert await read(ISR) == 0
        ctx.set(dut.input, 0)
        await write(MER, 2)
        assert await read(MER) == 2
        await write(ISR, 1)
        assert await read(ISR) == 0  # the hardware's alone now
        await write(MER, 1)
        assert await read(MER) == 3  # HIE stays

    play(scenario)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_any_writes_against_a_model(stall):
    """The input changes only while no write is under way, so that a model needs no time."""
    rng = random.Random(stall)

    async def scenario(ctx, dut, write, read):
        isr = ier = me = hie = level = 0
        for _ in range(150):
            level = rng.randrange(2)
            ctx.set(dut.input, level)
            await ctx.tick().repeat(2)
            isr |= level & hie
            offset, value = rng.choice((ISR, IPR, IER, IAR, SIE, CIE, IVR, MER)), rng.choice((0, 1, 1, 2, 3, NONE))
            await write(offset, value)
            bit = value & 1
            if offset == ISR and not hie:
                isr |= bit
            elif offset == IAR:
                isr &= ~bit
            elif offset == IER:
                ier = bit
            elif offset == SIE:
                ier |= bit
            elif offset == CIE:
                ier &= ~bit
            elif offset == MER:
                me, hie = bit, hie | value >> 1 & 1
            isr |= level & hie
            pending = isr & ier
            assert [await read(r) for r in (ISR, IPR, IER, IAR, SIE, CIE, IVR, MER)] == [
                isr, pending, ier, 0, 0, 0, 0 if pending else NONE, hie << 1 | me]
            assert ctx.get(dut.irq) == (pending & me)

    play(scenario, stall)


def test_other_offsets_and_parts_of_a_register_err():
    dut, done = reused(InterruptController), []

    async def process(ctx):
        axil = AxilMaster(dut.axil)
        for offset in (0x20, 0x24, 0x100, 0xFFC):
            assert await axil.read(ctx, offset) == (0, SLVERR)
            assert await axil.write(ctx, offset, 1) == SLVERR
        for register in (ISR, IER, SIE, MER):
            assert await axil.write(ctx, register, NONE, strb=0b0111) == SLVERR
        assert [(await axil.read(ctx, r))[0] for r in (ISR, IER, MER)] == [0, 0, 0]
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=1000)
