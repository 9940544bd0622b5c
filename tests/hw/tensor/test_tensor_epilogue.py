import itertools
import random

import numpy as np
import pytest
from nearflash.reference.tensor.epilogue import Scale, epilogue
from nearflash_hw.tensor.epilogue import Epilogue
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

LANES = 2
UNITY = {"bias": 0, "mult": 1, "shift": 0}


def corners(rng, limit):
    return rng.choice([limit, -limit, limit - 1, 0, 1, -1, rng.randint(-limit, limit), rng.randint(-300, 300)])


def random_control(rng, residual, lookup):
    limit = 127 if lookup else rng.choice([127, 32767])
    low, high = sorted(corners(rng, limit) for _ in range(2))
    if rng.random() < 0.5:
        low, high = -limit, limit
    return {"low": low, "high": high, "residual": residual, "residual_mult": rng.choice([1, 65535, rng.randrange(65536)]),
            "residual_shift": rng.choice([0, 1, 62, rng.randint(2, 20)]),
            "frac": rng.choice([0, 1, 4, 14, rng.randint(0, 14)]),
            "offset": rng.choice([0, 1 << 24, -(1 << 24), rng.randint(-1000, 1000)]), "lookup": lookup}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("residual", "lookup", "seed"), [(0, 0, 1), (1, 0, 2), (0, 1, 3), (1, 1, 4), (1, 0, 5), (0, 0, 6)])
def test_codes_are_the_models(residual, lookup, seed, stall):
    rng = random.Random(f"{residual} {lookup} {seed}")
    dut = reused(Epilogue, LANES)
    control = random_control(rng, residual, lookup)
    table = np.array([rng.randint(-127, 127) for _ in range(256)], np.int8)
    beats, entries, residuals, expected = [], [], [], []
    for _ in range(12):  # sets of channels, of some pixels each
        bias = [corners(rng, (1 << 46) - (1 << 33)) if rng.random() < 0.3 else rng.randint(-1 << 20, 1 << 20)
                for _ in range(LANES)]
        mult = [rng.choice([0, 1, 65535, rng.randrange(65536)]) for _ in range(LANES)]
        shift = [rng.choice([0, 62, rng.randint(10, 30)]) for _ in range(LANES)]
        entries += [{"bias": b, "mult": a, "shift": s} for b, a, s in zip(bias, mult, shift, strict=True)]
        pixels = rng.choice([1, 2, 5, 9])
        acc = np.array([[corners(rng, (1 << 31) - 1) for _ in range(LANES)] for _ in range(pixels)])
        r = np.array([[corners(rng, 32767) for _ in range(LANES)] for _ in range(pixels)])
        beats += [{"data": a.tolist(), "first": int(i == 0)} for i, a in enumerate(acc)]
        residuals += r.tolist()
        y = epilogue(acc, Scale(np.array(mult), np.array(shift)), control["low"], control["high"], bias=np.array(bias),
                     residual=r if residual else None,
                     residual_scale=Scale(control["residual_mult"], control["residual_shift"]), offset=control["offset"],
                     frac=control["frac"], table=table if lookup else None)
        expected += y.astype(int).tolist()
    sources = [StreamSource(dut.i, [], stall, seed=1), StreamSource(dut.entry, [], stall / 2, seed=2),
               StreamSource(dut.r, [], stall, seed=3)]
    sink, idle = StreamSink(dut.o, stall, seed=4), []

    async def load(ctx):
        ctx.set(dut.control, control)
        for index, code in enumerate(table.tolist()):
            ctx.set(dut.table, {"en": 1, "index": index, "code": code & 255})
            await ctx.tick()
        ctx.set(dut.table, {"en": 0, "index": 0, "code": 0})
        sources[0].items += beats
        sources[1].items += entries
        sources[2].items += residuals if residual else []
        while True:
            await ctx.tick()
            idle.append(ctx.get(dut.idle))

    simulate(dut, [*sources, sink, load], until=lambda: len(sink.items) >= len(expected), max_cycles=2000)
    assert sink.items == expected
    assert all(s.drained for s in sources)
    assert idle[-1]
    assert not all(idle)


def test_a_beat_a_cycle():
    """As long as its channels have as many pixels as lanes take entries."""
    dut = reused(Epilogue, LANES)
    beats = [{"data": [k, -k], "first": int(k % 4 == 0)} for k in range(32)]
    sink = StreamSink(dut.o)

    async def load(ctx):
        ctx.set(dut.control, {"low": -127, "high": 127})

    simulate(dut, [load, StreamSource(dut.i, beats), StreamSource(dut.entry, [UNITY] * 16), sink],
             until=lambda: len(sink.items) == 32, max_cycles=200)
    assert sink.items == [[k, -k] for k in range(32)]
    assert sink.cycles[-1] - sink.cycles[0] == 31
    assert sink.cycles[0] == 3 + Epilogue.LATENCY, "two entries before the first beat"


@pytest.mark.parametrize("frac", [0, 1, 3, 14])
def test_rounding_and_limits(frac):
    """(q + t + half) >> frac at and beside each half, on both sides of zero, and at and beside both limits."""
    dut = reused(Epilogue, LANES)
    step, (low, high) = 1 << frac, (-5, 6)
    values = [k * step + step // 2 + d for k, d in itertools.product(range(-8, 9), (-1, 0, 1))]
    sink = StreamSink(dut.o)

    async def load(ctx):
        ctx.set(dut.control, {"low": low, "high": high, "frac": frac})

    beats = [{"data": [v, v], "first": int(i == 0)} for i, v in enumerate(values)]
    simulate(dut, [load, StreamSource(dut.i, beats), StreamSource(dut.entry, [UNITY] * 2), sink],
             until=lambda: len(sink.items) == len(values), max_cycles=200)
    assert sink.items == [[min(max((v + step // 2) // step, low), high)] * 2 for v in values]
