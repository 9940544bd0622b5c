"""From a processing system's master port to each block of registers, and the shell's wires beside it."""

import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.processing import PS7, PS8
from nearflash.contract.registers import ADDRESS_BITS
from nearflash.contract.shell import INTC_REGISTERS, SHELL_MAGIC, blocks, shell_registers
from nearflash_hw.boards.lite_mux import DECERR
from nearflash_hw.boards.register_path import RegisterPath
from nearflash_hw.primitives.axi_lite import OKAY, SLVERR
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiLiteSlave, AxiMaster, Burst
from nearflash_sim.models.nvme_host import AxilMaster

TINY = DeviceConfig.preset("tiny")
DEVICE, INTC, SHELL = (b.offset for b in blocks(TINY))
AT = {r.name: (INTC if r in INTC_REGISTERS else SHELL) + r.offset for r in (*INTC_REGISTERS, *shell_registers(TINY))}
CONSTANTS = {"magic": SHELL_MAGIC, "version": 1, "design_id": TINY.design_id, "IVR": 0xFFFF_FFFF, "ISR": 0}
HALF = 1 << ADDRESS_BITS - 1  # of the device's block: the lower is read here, the upper written
FAILS = 24  # a word of the device that answers an error


def respond(addr, kind):
    return SLVERR if addr % HALF == FAILS else OKAY


@pytest.mark.parametrize("ps", [PS7, PS8], ids=lambda ps: ps.kind)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_access_reaches_its_block(ps, stall):
    """Of a word or several, to the device, to registers that are here, and beside them."""
    dut, rng = reused(RegisterPath, TINY, ps), random.Random(f"{ps.kind} {stall}")
    device = AxiLiteSlave(dut.device, stall, seed=1, respond=respond)
    device.words = {word: rng.getrandbits(32) for word in range(HALF // 4)}
    expected, writes = [], []

    def burst(offset, beats=1, **more):
        return Burst(rng.randrange(1 << ps.master_id_bits), ps.window + offset, beats, 2, **more)

    for _ in range(24):
        first = rng.choice([0, HALF // 4 - 4, rng.randrange(HALF // 4 - 4)])
        words = [first + k for k in range(rng.randint(1, 4))]
        kind = rng.choice(["device", "here", "outside"])
        if kind == "device":
            expected.append((burst(4 * first, len(words)), [(device.words[w], respond(4 * w, "r")) for w in words]))
        elif kind == "here":
            name = rng.choice([*CONSTANTS])
            expected.append((burst(AT[name]), [(CONSTANTS[name], OKAY)]))
        else:
            offset, answer = rng.choice([(1 << ADDRESS_BITS, DECERR), (INTC - 4, DECERR), (INTC + 0xFFC, SLVERR),
                                         (INTC + 0x1000, DECERR), (SHELL + 0x14, SLVERR), (SHELL + 0x1000, DECERR)])
            expected.append((burst(offset), [(0, answer)]))
        word = HALF // 4 + first
        values = [(rng.getrandbits(32), rng.randrange(1, 16)) for _ in words]
        writes.append(burst(4 * word, len(words), words=values))
    reads = [b for b, _ in expected]
    master = AxiMaster(dut.i, reads, writes, stall, seed=2)
    simulate(dut, [master, device], until=lambda: master.done, max_cycles=8000)
    assert [b.answer for b in reads] == [answer for _, answer in expected]
    done = [(b.addr - ps.window + 4 * k, *w) for b in writes for k, w in enumerate(b.words)]
    assert [access[1:] for access in device.log if access[0] == "w"] == done
    assert [b.answer for b in writes] == [
        [SLVERR if any(respond(b.addr - ps.window + 4 * k, "w") for k in range(b.beats)) else OKAY] for b in writes]


def play(scenario):
    """Word accesses one after the other: the AXI port has all of an AXI4-Lite master's members, and these beside."""
    dut, done = reused(RegisterPath, TINY, PS7), []
    device = AxiLiteSlave(dut.device)

    async def bench(ctx):
        for ch in ("aw", "ar"):
            ctx.set(getattr(dut.i, ch + "size"), 2)
            ctx.set(getattr(dut.i, ch + "burst"), 1)
        ctx.set(dut.i.wlast, 1)
        axi = AxilMaster(dut.i)

        async def write(offset, value):
            return await axi.write(ctx, PS7.window + offset, value)

        async def read(offset):
            return await axi.read(ctx, PS7.window + offset)

        await scenario(ctx, dut, device, write, read)
        done.append(True)

    simulate(dut, [device, bench], until=lambda: bool(done), max_cycles=2000)


def test_the_devices_interrupt_reaches_the_processors():
    async def scenario(ctx, dut, device, write, read):
        for name, value in (("MER", 3), ("IER", 1)):
            assert await write(AT[name], value) == OKAY
        assert ctx.get(dut.irq) == 0
        ctx.set(dut.interrupt, 1)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.irq) == 1
        assert await read(AT["IVR"]) == (0, OKAY)
        ctx.set(dut.interrupt, 0)
        await write(AT["IAR"], 1)
        assert ctx.get(dut.irq) == 0
        assert not device.log

    play(scenario)


@pytest.mark.parametrize(("busy", "status"), [("host_busy", 2), ("dram_busy", 4)])
def test_a_reset_waits_for_each_port_and_the_device_is_away(busy, status):
    """Its registers answer an error and see nothing from the request on; all the others answer as before."""
    async def scenario(ctx, dut, device, write, read):
        assert await write(DEVICE + 8, 7) == OKAY
        ctx.set(getattr(dut, busy), 1)
        assert await read(AT["status"]) == (status, OKAY)
        assert await write(AT["reset"], 1) == OKAY
        await ctx.tick().repeat(3)
        assert (ctx.get(dut.closed), ctx.get(dut.reset)) == (1, 0)
        assert await read(DEVICE + 8) == (0, SLVERR)
        assert await write(DEVICE + 8, 9) == SLVERR
        assert await read(AT["magic"]) == (SHELL_MAGIC, OKAY)
        ctx.set(getattr(dut, busy), 0)
        await ctx.tick().repeat(3)
        assert (ctx.get(dut.closed), ctx.get(dut.reset)) == (1, 1)
        assert await read(AT["status"]) == (1, OKAY)
        assert await write(AT["reset"], 0) == OKAY
        await ctx.tick().repeat(3)
        assert (ctx.get(dut.closed), ctx.get(dut.reset)) == (0, 0)
        assert await read(DEVICE + 8) == (7, OKAY)
        assert [access[:3] for access in device.log] == [("w", 8, 7), ("r", 8, 7)]

    play(scenario)
