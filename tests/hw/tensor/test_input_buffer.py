import random

import numpy as np
import pytest
from nearflash.contract.tensor import TensorConfig, pixel_bytes
from nearflash.contract.tensor_image import pack_tensor
from nearflash_hw.tensor.input_buffer import InputTiles
from nearflash_sim.bench import StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEAT, COLUMNS, AT = 8, 16, 0x400
CONFIG = TensorConfig(rows=4, columns=COLUMNS, pixels=16, lanes=2, input_bytes=1024)  # 32 words a half
HEIGHT, WIDTH = 5, 6
TILES = [(-1, -2, 3, 4), (2, 3, 4, 4), (0, 0, 1, 1), (4, 5, 2, 3), (-2, 0, 3, 5), (1, -1, 2, 8)]  # y, x, rows, columns


def run(channels, tiles, stall=0.0, fail=lambda addr: False):
    """For each tile, its words by (row, column, word); the beats asked for; the requests there were when the first tile was
    released; how often ``error`` pulsed."""
    rng = random.Random(channels)
    x = np.random.default_rng(channels).integers(-127, 128, (HEIGHT, WIDTH, channels)).astype(np.int8)
    words, pixel = -(-channels // COLUMNS), pixel_bytes(channels, 0, BEAT)
    dut = reused(InputTiles, CONFIG, BEAT)
    memory = MemoryModel(BEAT, latency=11, stall=stall, seed=1, fail=fail)
    memory.write(AT, pack_tensor(x, BEAT))
    source, got, asked, early, errors = StreamSource(dut.tile, [], stall, 2), [], [], [], []

    async def user(ctx):
        ctx.set(dut.plan, {"x": {"pixel": pixel, "row": WIDTH * pixel}, "in_height": HEIGHT, "in_width": WIDTH,
                           "words": words})
        source.items += [{"x": (AT + (y * WIDTH + c) * pixel) % (1 << 32), "iy": y, "ix": c, "in_rows": h, "in_columns": w,
                          "line": w * words} for y, c, h, w in tiles]
        for y, c, h, w in tiles:
            while not ctx.get(dut.available):
                await ctx.tick()
            inside = [(r, k, n) for r in range(h) for k in range(w) for n in range(words)
                      if 0 <= y + r < HEIGHT and 0 <= c + k < WIDTH]
            rng.shuffle(inside)
            if not got:
                await ctx.tick().repeat(200)
                early.append(len(asked))
            found = {}
            for place in inside:
                while rng.random() < stall:
                    await ctx.tick()
                r, k, n = place
                ctx.set(dut.read, {"en": 1, "address": r * w * words + k * words + n})
                ctx.set(dut.release, int(place == inside[-1]))
                await ctx.tick()
                ctx.set(dut.read, {"en": 0, "address": 0})
                ctx.set(dut.release, 0)
                found[place] = ctx.get(dut.data)
            got.append(found)

    async def watch(ctx):
        req = dut.mem_read.req
        async for *_, valid, ready, beats, error in ctx.tick().sample(req.valid, req.ready, req.payload.beats, dut.error):
            if valid and ready:
                asked.append(beats)
            errors.append(error)

    simulate(dut, [source, user, watch, memory.read_port(dut.mem_read)], until=lambda: len(got) == len(tiles),
             max_cycles=6000)
    assert memory.pending == 0
    assert source.drained
    for (y, c, *_), found in zip(tiles, got, strict=True):
        for (r, k, n), data in found.items():
            want = x[y + r, c + k, n * COLUMNS:(n + 1) * COLUMNS].tobytes()
            assert data.to_bytes(COLUMNS, "little")[:len(want)] == want, (y, c, r, k, n)
    return got, asked, early, sum(errors)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("channels", [5, 16, 11])
def test_words_of_what_lies_inside(channels, stall):
    """A beat of a word's two, both, and both with a last one in part: what a tile sees of the input is read once, nothing of
    the padding."""
    got, asked, early, errors = run(channels, TILES, stall)
    beats = pixel_bytes(channels, 0, BEAT) // BEAT
    assert sum(asked) == sum(len(found) for found in got) * beats
    lines = [len({r for r, *_ in found}) for found in got]
    assert early == [lines[0] + lines[1]], "the second half ahead, the third tile not before one is free"
    assert errors == 0


def test_pixels_of_several_words():
    _, asked, *_ = run(20, [(0, 0, 2, 3), (-1, 4, 2, 4), (3, 2, 3, 2)], 0.2)
    assert sum(asked) == 3 * (2 * 3 + 1 * 2 + 2 * 2)


def test_a_failed_read_is_said():
    failing = [AT + 8]
    *_, errors = run(16, [(0, 0, 2, 2), (1, 1, 2, 2)], fail=lambda addr: addr in failing and bool(failing.pop()))
    assert errors == 1
