"""Registers of the contract behind AXI4-Lite: what reads as what, which writes are seen, and what is refused."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.registers import Field, Register
from nearflash_hw.boards.register_block import BLOCK_ADDRESS_BITS, serve
from nearflash_hw.primitives.axi_lite import OKAY, SLVERR, AxiLiteSignature, AxiLiteSlave
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models.nvme_host import AxilMaster

REGISTERS = (
    Register("whole", 0x00, "", (Field("all", 0, 32, "rw", ""),)),
    Register("parts", 0x04, "", (
        Field("low", 0, 3, "rw", ""), Field("fixed", 4, 8, "ro", "", 0xA5), Field("high", 31, 1, "ro", ""))),
    Register("seen", 0x0C, "", (Field("level", 1, 5, "ro", ""),)),
    Register("secret", 0xFF8, "", (Field("key", 0, 16, "wo", ""),)),
    Register("last", 0xFFC, "", (Field("constant", 0, 32, "ro", "", 0xFFFF_FFFE),)),
)
OFFSETS = {r.name: r.offset for r in REGISTERS}
WRITTEN = ("whole", "parts", "secret")  # all that is not read-only


class Registers(wiring.Component):
    """:data:`REGISTERS` with values from ports; ``written``: a bit for each of :data:`WRITTEN`."""

    def __init__(self):
        super().__init__({
            "axil": In(AxiLiteSignature(BLOCK_ADDRESS_BITS)), "all": In(32), "low": In(3), "high": In(1), "level": In(5),
            "key": In(16), "written": Out(len(WRITTEN)), "data": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(BLOCK_ADDRESS_BITS)
        connect(m, flipped(self.axil), slave.bus)
        strobes = serve(m, slave, REGISTERS, {
            ("whole", "all"): self.all, ("parts", "low"): self.low, ("parts", "high"): self.high,
            ("seen", "level"): self.level, ("secret", "key"): self.key})
        assert tuple(strobes) == WRITTEN
        m.d.comb += [self.data.eq(slave.wr_data), *(self.written[k].eq(strobes[n]) for k, n in enumerate(WRITTEN))]
        return m


def reads_as(offset, now):
    """The value of the register at ``offset`` while the ports have ``now``."""
    return {0x00: now["all"], 0x04: now["low"] | 0xA5 << 4 | now["high"] << 31, 0x0C: now["level"] << 1, 0xFF8: 0,
            0xFFC: 0xFFFF_FFFE}[offset]


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_any_accesses(stall):
    dut, rng, seen, done = reused(Registers), random.Random(stall), [], []

    async def watch(ctx):
        async for *_, written, value in ctx.tick().sample(dut.written, dut.data):
            if written:
                seen.append((written, value))

    async def accesses(ctx):
        axil, expected = AxilMaster(dut.axil, 3, stall), []
        for _ in range(150):
            now = {name: rng.getrandbits(len(getattr(dut, name))) for name in ("all", "low", "high", "level", "key")}
            for name, value in now.items():
                ctx.set(getattr(dut, name), value)
            offset = rng.choice([*OFFSETS.values(), *OFFSETS.values(), 0x08, 0x10, 0x800, 0xFF4])
            known = offset in OFFSETS.values()
            if rng.random() < 0.5:
                value, response = await axil.read(ctx, offset + rng.randrange(4))
                assert (value, response) == ((reads_as(offset, now), OKAY) if known else (0, SLVERR))
            else:
                value, strb = rng.getrandbits(32), rng.choice([15, 15, rng.randrange(16)])
                assert await axil.write(ctx, offset, value, strb) == (OKAY if known and strb == 15 else SLVERR)
                for k, name in enumerate(WRITTEN):
                    if strb == 15 and offset == OFFSETS[name]:
                        expected.append((1 << k, value))
            assert seen == expected
        done.append(True)

    simulate(dut, [watch, accesses], until=lambda: bool(done), max_cycles=8000)
    assert {written for written, _ in seen} == {1, 2, 4}
