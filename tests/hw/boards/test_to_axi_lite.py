"""Bursts as single accesses: the addresses of Arm IHI 0022 (A3.4.1), strobes, responses and IDs."""

import random
from functools import reduce
from operator import or_

import pytest
from nearflash_hw.boards.to_axi_lite import ToAxiLite
from nearflash_hw.primitives.axi import Axi3Signature, AxiSignature
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiLiteSlave, AxiMaster, Burst

FIXED, INCR, WRAP = range(3)


def bridge(axi):
    return reused(lambda kind: ToAxiLite(kind(32, 32, 12)), axi)


def addresses(burst):
    """As the standard's equations have them."""
    size, length = 1 << burst.size, burst.beats
    aligned = burst.addr // size * size
    wrap = burst.addr // (size * length) * (size * length)
    out = [burst.addr]
    for n in range(2, length + 1):
        if burst.kind == FIXED:
            out.append(burst.addr)
            continue
        a = aligned + (n - 1) * size
        if burst.kind == WRAP and a >= wrap + size * length:
            a -= size * length
        out.append(a)
    return out


def random_burst(rng, longest, writes):
    kind, size = rng.choice([FIXED, INCR, INCR, WRAP]), rng.randrange(3)
    beats = rng.choice([2, 4, 8, 16]) if kind == WRAP else rng.choice([1, 1, 2, rng.randint(1, min(16, longest)), longest])
    beats = min(beats, 16) if kind == FIXED else beats
    page, span = rng.randrange(1 << 20) << 12, beats << size
    addr = page + rng.choice([0, 4096 - span, rng.randrange(4096 - span + 1)])
    burst = Burst(rng.randrange(4096), addr >> size << size if kind == WRAP else addr, beats, size, kind)
    if writes:
        for a in addresses(burst):
            lanes = sum(1 << k for k in range(a % 4, a % 4 // (1 << size) * (1 << size) + (1 << size)))
            burst.words = [*burst.words, (rng.getrandbits(32), rng.choice([lanes, lanes & rng.getrandbits(4), 0]))]
    return burst


def respond(addr, kind):
    return {3: 0b10, 5: 0b11}.get(addr // 4 % 17, 0)


@pytest.mark.parametrize(("axi", "longest"), [(Axi3Signature, 16), (AxiSignature, 256)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_any_bursts(axi, longest, stall):
    rng, dut = random.Random(f"{axi.__name__} {stall}"), bridge(axi)
    reads, writes = ([random_burst(rng, longest, w) for _ in range(20)] for w in (False, True))
    master, slave = AxiMaster(dut.i, reads, writes, stall, seed=1), AxiLiteSlave(dut.o, stall, seed=2, respond=respond)
    simulate(dut, [master, slave], until=lambda: master.done, max_cycles=40_000, settle=50)
    for kind, bursts in (("r", reads), ("w", writes)):
        words = ((a, *w) for b in bursts for a, w in zip(addresses(b), b.words or [(0, 1)] * b.beats, strict=True))
        expected = [word for word in words if word[2]]
        got = [access[1:] for access in slave.log if access[0] == kind]
        assert [a for a, *_ in got] == [a for a, *_ in expected]
        if kind == "w":
            assert got == expected
    for b in writes:
        responses = (respond(a, "w") for a, (_, strb) in zip(addresses(b), b.words, strict=True) if strb)
        assert b.answer == [reduce(or_, responses, 0)]
    for b in reads:
        assert [r for _, r in b.answer] == [respond(a, "r") for a in addresses(b)]
    given = [data for kind, _, data, _ in slave.log if kind == "r"]
    assert given == [data for b in reads for data, _ in b.answer]


def test_reads_and_writes_take_turns():
    dut = bridge(Axi3Signature)
    reads = [Burst(k, 4 * k, 1, 2) for k in range(10)]
    writes = [Burst(k, 4 * k, 1, 2, words=[(k, 15)]) for k in range(10)]
    master, slave = AxiMaster(dut.i, reads, writes), AxiLiteSlave(dut.o)
    simulate(dut, [master, slave], until=lambda: master.done, max_cycles=400)
    kinds = [access[0] for access in slave.log]
    assert all(a != b for a, b in zip(kinds, kinds[1:], strict=False))


def test_a_wider_port_is_refused():
    with pytest.raises(ValueError, match="data_bits = 64"):
        ToAxiLite(AxiSignature(32, 64, 12))
