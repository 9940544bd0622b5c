import random

import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.window import Window
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

COLUMNS = 8
CONFIG = TensorConfig(rows=4, columns=COLUMNS, pixels=16, lanes=2, input_bytes=4096)
HEIGHT, WIDTH, PAD_VALUE = 7, 8, -127


def word(tile, address):
    """What lies at an address of a tile: bytes of its own."""
    return [random.Random(f"{tile} {address} {k}").randint(-127, 127) for k in range(COLUMNS)]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("kernel", "stride", "words", "blocks", "tiles"), [
    ((3, 3), 1, 1, 2, [(-1, -1, 2, 3), (5, 6, 2, 2), (0, 2, 1, 1)]), ((1, 1), 1, 3, 1, [(0, 0, 1, 5), (6, 3, 1, 5)]),
    ((2, 3), 2, 2, 3, [(-1, 0, 2, 4), (5, 4, 1, 2)]), ((8, 1), 8, 1, 1, [(-7, 7, 2, 1)])])
def test_steps_by_the_definition(kernel, stride, words, blocks, tiles, stall):
    """Output block, tap, channel block, pixel: each a word of the buffer, or padding where the pixel lies outside."""
    dut, items, expected = reused(Window, CONFIG), [], []
    for t, (iy, ix, rows, columns) in enumerate(tiles):
        in_columns = (columns - 1) * stride + kernel[1]
        line = in_columns * words
        items.append({"rows": rows, "columns": columns, "iy": iy, "ix": ix, "in_columns": in_columns, "line": line,
                      "down": line * stride, "skip": line - kernel[1] * words + 1, "blocks": blocks})
        steps = [(ky, kx, w) for ky in range(kernel[0]) for kx in range(kernel[1]) for w in range(words)]
        for _ in range(blocks):
            for n, (ky, kx, w) in enumerate(steps):
                for p in range(rows * columns):
                    y, x = p // columns * stride + ky, p % columns * stride + kx
                    inside = 0 <= iy + y < HEIGHT and 0 <= ix + x < WIDTH
                    expected.append({
                        "x": word(t, y * line + x * words + w) if inside else [PAD_VALUE] * COLUMNS, "pixel": p,
                        "begin": int(p == 0), "first": int(n == 0), "last": int(n == len(steps) - 1),
                        "end": int(p == rows * columns - 1)})
    source, sink, idle, released = StreamSource(dut.tile, [], stall, 1), StreamSink(dut.o, stall, 2), [], []

    async def buffer(ctx):
        rng = random.Random(5)
        ctx.set(dut.plan, {"in_height": HEIGHT, "in_width": WIDTH, "kernel_h": kernel[0], "kernel_w": kernel[1],
                           "stride": stride, "pad_value": PAD_VALUE, "words": words, "stride_words": stride * words})
        source.items += items
        for t in range(len(tiles)):
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(dut.available, 1)
            release = 0
            while not release:
                *_, en, address, release = await ctx.tick().sample(dut.read.en, dut.read.address, dut.release)
                if en:
                    bits = [v & 255 for v in word(t, address)]
                    ctx.set(dut.data, sum(v << 8 * k for k, v in enumerate(bits)))
            ctx.set(dut.available, 0)
            released.append(t)
        while True:
            await ctx.tick()
            idle.append(ctx.get(dut.idle))

    simulate(dut, [source, sink, buffer], until=lambda: len(sink.items) >= len(expected), max_cycles=4000)
    assert sink.items == expected
    assert released == list(range(len(tiles)))
    assert source.drained
    assert idle[-1]
