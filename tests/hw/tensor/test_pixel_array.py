import random

import numpy as np
import pytest
from nearflash_hw.tensor.array import PixelArray
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

COLUMNS, PIXELS, BEAT = 2, 8, 4


def block(rng, rows, pixels, steps):
    """An output block's steps, weight beats, and sums [pixels, rows]; the largest operands among them."""
    def codes(*shape, low=-127):
        return np.array([rng.choice((low, 127, rng.randint(low, 127))) for _ in range(int(np.prod(shape)))]).reshape(shape)

    x, w = codes(steps, pixels, COLUMNS), codes(steps, rows, COLUMNS, low=-128)
    items = [{"x": x[s, n].tolist(), "pixel": n, "begin": int(n == 0), "first": int(s == 0), "last": int(s == steps - 1),
              "end": int(n == pixels - 1)} for s in range(steps) for n in range(pixels)]
    raw = w.astype(np.int8).tobytes()
    words = [int.from_bytes(raw[k:k + BEAT], "little") for k in range(0, len(raw), BEAT)]
    return items, words, np.einsum("spc,src->pr", x, w)


def outputs(sums, lanes):
    pixels, rows = sums.shape
    return [{"data": sums[n, c:c + lanes].tolist(), "first": int(n == 0)}
            for c in range(0, rows, lanes) for n in range(pixels)]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "lanes", "packed"), [(4, 4, False), (4, 2, False), (4, 1, True)])
def test_sums_of_blocks(rows, lanes, packed, stall):
    rng = random.Random(rows + lanes)
    dut = reused(make, rows, lanes, packed)
    steps, words, expected = [], [], []
    for _ in range(12):
        i, w, sums = block(rng, rows, rng.choice([1, 2, 3, 5, PIXELS, PIXELS]), rng.choice([1, 1, 2, 3, 9]))
        steps, words, expected = steps + i, words + w, expected + outputs(sums, lanes)
    sources = [StreamSource(dut.i, steps, stall, 1), StreamSource(dut.weight, words, stall, 2)]
    sink, idle = StreamSink(dut.o, stall, 3), []

    async def watch(ctx):
        async for _, _, v in ctx.tick().sample(dut.idle):
            idle.append(v)

    simulate(dut, [*sources, sink, watch], until=lambda: len(sink.items) >= len(expected), max_cycles=6000)
    assert sink.items == expected
    assert all(s.drained for s in sources)
    assert idle[-1]
    assert not all(idle)


def make(rows, lanes, packed):
    return PixelArray(rows, COLUMNS, PIXELS, lanes, BEAT, packed=packed)


def test_a_pixel_a_cycle_while_sums_leave():
    """Steps never wait where a block has as many as its rows have parts, and a word comes within a tile's pixels."""
    dut, rng = reused(make, 4, 2, False), random.Random(5)
    blocks = [block(rng, 4, PIXELS, 2) for _ in range(6)]
    source = StreamSource(dut.i, [s for b in blocks for s in b[0]])
    sink, taken = StreamSink(dut.o), []

    async def watch(ctx):
        cycle = 0
        async for _, _, valid, ready in ctx.tick().sample(dut.i.valid, dut.i.ready):
            cycle += 1
            if valid and ready:
                taken.append(cycle)

    expected = [o for b in blocks for o in outputs(b[2], 2)]
    simulate(dut, [source, StreamSource(dut.weight, [w for b in blocks for w in b[1]]), sink, watch],
             until=lambda: len(sink.items) == len(expected), max_cycles=500)
    assert sink.items == expected
    assert taken[-1] - taken[0] == 6 * 2 * PIXELS - 1
    assert sink.cycles[0] - taken[PIXELS] == dut.latency
