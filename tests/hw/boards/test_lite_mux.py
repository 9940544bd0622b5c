"""The decoder: every access reaches its target alone, or is refused with the right response."""

import random

import pytest
from nearflash_hw.boards.lite_mux import DECERR, LiteMux
from nearflash_hw.primitives.axi_lite import SLVERR
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiLiteSlave
from nearflash_sim.models.nvme_host import AxilMaster

BASE = 0x4000_0000
TARGETS = ((BASE, 13), (BASE + 0x1_0000, 12), (BASE + 0x2_0000, 12))
#: Addresses of no target: beside, between, where bits above are dropped, the ends.
OUTSIDE = (0, 0x2000, BASE - 4, BASE + 0x2000, BASE + 0xFFFC, BASE + 0x1_1000, BASE + 0x2_1000, BASE + 0x3_0000, 2 * BASE,
           0xFFFF_FFFC)


def mux():
    return reused(LiteMux, 32, TARGETS)


def responses(addr, kind):
    return SLVERR if addr % 64 == 12 else 0


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_every_access_reaches_its_target_or_is_refused(stall):
    dut = mux()
    slaves = [AxiLiteSlave(port, stall, seed=k, respond=responses) for k, port in enumerate(dut.ports)]
    finished = []

    def choose(rng):
        k = rng.choice([None, 0, 1, 2])
        if k is None:
            return k, rng.choice(OUTSIDE), 0
        base, bits = TARGETS[k]
        inside = rng.choice([0, (1 << bits) - 4, rng.randrange(0, 1 << bits, 4)])
        return k, base + inside, inside

    written, read = [], []

    async def writes(ctx):
        axil, rng = AxilMaster(dut.i, 3, stall), random.Random(4)
        for _ in range(60):
            k, addr, inside = choose(rng)
            value, strb = rng.getrandbits(32), rng.randrange(16)
            got = await axil.write(ctx, addr, value, strb)
            if k is not None:
                written.append((k, inside, value, strb))
            assert got == (DECERR if k is None else responses(inside, "w"))
        finished.append("w")

    async def reads(ctx):
        axil, rng = AxilMaster(dut.i, 5, stall), random.Random(6)
        for _ in range(60):
            k, addr, inside = choose(rng)
            value, got = await axil.read(ctx, addr)
            assert got == (DECERR if k is None else responses(inside, "r"))
            if k is None:
                assert value == 0
            else:
                read.append((k, inside, value))
        finished.append("r")

    simulate(dut, [*slaves, writes, reads], until=lambda: len(finished) == 2, max_cycles=12_000, settle=50)
    for k, slave in enumerate(slaves):
        assert [entry[1:] for entry in slave.log if entry[0] == "w"] == [w[1:] for w in written if w[0] == k]
        assert [entry[1:3] for entry in slave.log if entry[0] == "r"] == [r[1:] for r in read if r[0] == k]


def test_a_target_that_is_away_answers_an_error_and_sees_nothing():
    dut = mux()
    slaves = [AxiLiteSlave(port) for port in dut.ports]
    seen = []

    async def bench(ctx):
        axil = AxilMaster(dut.i)
        for away in (0b001, 0b110, 0b000):
            ctx.set(dut.away, away)
            for k, (base, _) in enumerate(TARGETS):
                expected = SLVERR if away >> k & 1 else 0
                assert await axil.write(ctx, base + 4, 7) == expected
                assert await axil.read(ctx, base + 4) == (0 if expected else 7, expected)
            seen.append([len(s.log) for s in slaves])

    simulate(dut, [*slaves, bench], until=lambda: len(seen) == 3, max_cycles=1000)
    assert seen == [[0, 2, 2], [2, 2, 2], [4, 4, 4]]


@pytest.mark.parametrize("targets", [((0x1000, 13),), ((0, 13), (0x1000, 12)), ((0xFFFF_F000, 12), (1 << 32, 12))])
def test_targets_that_cannot_be(targets):
    with pytest.raises(ValueError, match="targets = "):
        LiteMux(32, targets)
