import random

import numpy as np
import pytest
from nearflash.reference.requantize import requantize
from nearflash_hw.engine.requantize import Requantizer
from nearflash_hw.mlp.epilogue import Epilogue
from nearflash_sim.bench import StreamSink, StreamSource, simulate


def corner_acc(rng, bits=46):
    return rng.choice([0, 1, -1, (1 << bits) - 1, -(1 << bits) + 1, rng.randint(-(1 << bits) + 1, (1 << bits) - 1),
                       rng.randint(-300, 300), 1 << rng.randint(0, bits - 1), -(1 << rng.randint(0, bits - 1))])


@pytest.mark.parametrize(("bits", "relu"), [(8, False), (8, True), (16, False), (32, False)])
def test_requantizer_corners(bits, relu):
    rng = random.Random(bits + relu)
    cases = [(corner_acc(rng), rng.choice([0, 1, 2, 3, 65535, rng.randint(0, 65535)]),
              rng.choice([0, 1, 2, 7, 8, 61, 62, rng.randint(0, 62)])) for _ in range(400)]
    # exact halves around zero and around the limits
    for hi in (0, 2 ** (bits - 1) - 2, 2 ** (bits - 1) - 1):
        cases += [(s * (2 * hi + 1) + d, 1, 1) for s in (1, -1) for d in (-1, 0, 1)]
    # every shift, around the limits
    cases += [(s * ((1 << bits - 1) + d) * (1 << shift) + rng.randint(-1, 1), 1, shift)
              for shift in range(63) if shift + bits < 47 for s in (1, -1) for d in (-1, 0, 1)]
    cases += [(corner_acc(rng), 65535, shift) for shift in range(63)]
    dut = Requantizer(2, bits, relu, 4)
    got = []

    async def drive(ctx):
        for i in range(0, len(cases) - 1, 2):
            a, b = cases[i], cases[i + 1]
            ctx.set(dut.acc, [a[0], b[0]])
            ctx.set(dut.mult, [a[1], b[1]])
            ctx.set(dut.shift, [a[2], b[2]])
            ctx.set(dut.tag, i & 15)
            ctx.set(dut.valid, 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            if rng.random() < 0.2:
                await ctx.tick()

    async def watch(ctx):
        while True:
            _, _, v, q, t = await ctx.tick().sample(dut.o_valid, dut.q, dut.o_tag)
            if v:
                assert t == len(got) & 15
                got.extend([q[0], q[1]])

    n = len(cases) // 2 * 2
    simulate(dut, [drive, watch], until=lambda: len(got) >= n, max_cycles=2000)
    acc, mult, shift = (np.array([c[k] for c in cases[:n]], np.int64) for k in range(3))
    assert got == requantize(acc, mult, shift, bits, relu).tolist()


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(("rows", "lanes", "cores", "relu"), [(5, 1, 1, True), (7, 4, 2, False), (8, 2, 3, True)])
def test_epilogue_joins_and_requantises(rows, lanes, cores, relu, stall):
    rng = random.Random(rows)
    dut = Epilogue(rows, lanes, (24,) * cores, 8, relu, 2)
    entries = [(rng.randint(-40000, 40000), rng.randint(1, 65535), rng.randint(16, 30)) for _ in range(rows)]
    blocks = -(-rows // lanes)
    beats, expected = [[] for _ in range(cores)], []
    for _ in range(4):
        nb = rng.randint(0, 2)
        for b in range(blocks):
            for n in range(nb + 1):
                acc = np.array([[rng.randint(-2**22, 2**22) for _ in range(lanes)] for _ in range(cores)])
                for k in range(cores):
                    beats[k].append({"data": acc[k].tolist(), "pos": b * lanes, "n": n, "nb": nb})
                r = [min(b * lanes + i, rows - 1) for i in range(lanes)]
                bias, mult, shift = (np.array([entries[i][k] for i in r]) for k in range(3))
                q = requantize(acc.sum(0) + bias, mult, shift, 8, relu)
                expected.append({"data": q.tolist(), "pos": b * lanes, "n": n, "nb": nb})
    sources = [StreamSource(getattr(dut, f"i{k}"), [], stall, seed=k) for k in range(cores)]
    sink = StreamSink(dut.o, stall, seed=9)
    idle = []

    async def load(ctx):
        for i, (bias, mult, shift) in enumerate(entries):
            ctx.set(dut.entry, {"bias": bias, "mult": mult, "shift": shift})
            ctx.set(dut.entry_row, i)
            ctx.set(dut.entry_valid, 1)
            await ctx.tick()
        ctx.set(dut.entry_valid, 0)
        for k in range(cores):
            sources[k].items += beats[k]
        while True:
            await ctx.tick()
            idle.append(ctx.get(dut.idle))

    simulate(dut, [*sources, sink, load], until=lambda: len(sink.items) >= len(expected), max_cycles=3000)
    for got, want in zip(sink.items, expected, strict=True):
        keep = min(lanes, rows - want["pos"])
        assert got["data"][:keep] == want["data"][:keep]
        assert (got["pos"], got["n"], got["nb"]) == (want["pos"], want["n"], want["nb"])
    assert idle[-1]
    assert not all(idle)
    if not stall:
        assert sink.cycles[-1] - sink.cycles[0] == len(expected) - 1, "one beat per cycle"
