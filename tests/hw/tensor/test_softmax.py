"""Exponentials and scales of tiles of scores, as :mod:`nearflash.reference.tensor.attention` has them."""

import random

import numpy as np
import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash.reference.tensor.attention import EXP_ONE, LOG_BITS, exponentials, reciprocal
from nearflash.reference.tensor.epilogue import Scale
from nearflash_hw.tensor.softmax import Reciprocals, Softmax, tile_keys, tile_tokens
from nearflash_sim.bench import StreamSource, reused, simulate

CONFIG = TensorConfig(rows=4, columns=8, pixels=8, lanes=2, max_keys=64)
MOST = 64 * 127 * 127  # of a score, either way
BASE = 255  # of an exponential's two digits


def scale_of(total, mult, shift):
    r, length = reciprocal(np.array([total]))
    return {"mult": int(r[0]) * mult >> 16, "shift": int(length[0]) + shift}


@pytest.mark.parametrize(("mult", "shift", "stall"), [(1 << 15, 0, 0.0), (65535, 38, 0.3), (45678, 11, 0.0)])
def test_reciprocals_of_totals_of_every_length(mult, shift, stall):
    """The least and the greatest of every length, where the quotient saturates, and 1024 of the greatest exponential."""
    rng, dut, got = random.Random(shift), reused(Reciprocals), []
    totals = [v for n in range(25) for v in {1 << n, (2 << n) - 1, rng.randrange(1 << n, 2 << n)}]
    totals += [EXP_ONE, 1024 * EXP_ONE]
    source = StreamSource(dut.i, totals, stall, 1)

    async def take(ctx):
        ctx.set(dut.value_mult, mult)
        ctx.set(dut.value_shift, shift)
        async for *_, valid, scale in ctx.tick().sample(dut.valid, dut.o):
            if valid:
                got.append({"mult": scale.mult, "shift": scale.shift})

    simulate(dut, [take, source], until=lambda: len(got) >= len(totals), max_cycles=8000)
    assert got == [scale_of(total, mult, shift) for total in totals]


def tiles(rng, keys):
    """Scores [tokens, keys]: anything, all the same, one apart from the others by all that there is, the ends."""
    most = tile_tokens(CONFIG)
    while most * keys > tile_tokens(CONFIG) * tile_keys(CONFIG):
        most //= 2
    for kind in ("any", "near", "same", "one", "ends"):
        tokens = rng.randint(1, most)
        s = np.array([[rng.randint(-MOST, MOST) for _ in range(keys)] for _ in range(tokens)])
        if kind == "near":
            s = rng.randint(-MOST, MOST - 2000) + s % 2000
        elif kind == "same":
            s[:] = s[:, :1]
        elif kind == "one":
            s[:] = -MOST
            s[:, rng.randrange(keys)] = MOST
        elif kind == "ends":
            s = np.where(s > 0, MOST, -MOST)
        yield s


def in_order(rng, scores):
    """The array's transfers: block of keys, ``lanes`` of them, token; anything for keys that don't exist."""
    tokens, keys = scores.shape
    padded = np.array([[rng.randint(-MOST, MOST) for _ in range(-keys % CONFIG.rows)] for _ in range(tokens)], int)
    whole = np.concatenate([scores, padded.reshape(tokens, -1)], axis=1)
    return [{"data": whole[t, k:k + CONFIG.lanes].tolist(), "first": 0}
            for k in range(0, whole.shape[1], CONFIG.lanes) for t in range(tokens)]


@pytest.mark.parametrize(("keys", "score", "stall"), [
    (1, (40000, 20), 0.0), (5, (65535, 17), 0.4), (16, (33000, 26), 0.0), (17, (50000, 9), 0.4), (64, (65535, 24), 0.0)])
def test_tiles_of_scores(keys, score, stall):
    """The next tile's are made while the last one's are read, which stay as they are until they are released."""
    rng, dut = random.Random(keys), reused(Softmax, CONFIG)
    value, wanted = (52345, 21), list(tiles(rng, keys))
    source, ends, read = StreamSource(dut.i, [], stall, 1), [], []
    words = -(-keys // CONFIG.columns)

    async def give(ctx):
        ports = (dut.keys, dut.score_mult, dut.score_shift, dut.value_mult, dut.value_shift)
        for port, v in zip(ports, (keys, *score, *value), strict=True):
            ctx.set(port, v)
        await ctx.tick().repeat(2)
        for scores in wanted:
            while not ctx.get(dut.free):
                await ctx.tick()
            ctx.set(dut.tokens, len(scores))
            ctx.set(dut.reserve, 1)
            await ctx.tick()
            ctx.set(dut.reserve, 0)
            source.items += in_order(rng, scores)
            while not source.drained:
                await ctx.tick()

    async def end(ctx):
        async for *_, tile_end, valid in ctx.tick().sample(dut.tile_end, dut.i.valid):
            if tile_end:
                assert valid
                ends.append(source.sent + 1)

    async def exponentials_of(ctx, token):
        got = []
        for word in range(words):
            ctx.set(dut.read.address, words * token + word)
            ctx.set(dut.read.en, 1)
            await ctx.tick()
            ctx.set(dut.read.en, 0)
            digits = ctx.get(dut.data)
            assert all(-127 <= d <= 127 for pair in digits for d in (pair.high, pair.low))
            got += [BASE * pair.high + pair.low for pair in digits]
        return got

    async def take(ctx):
        for number, scores in enumerate(wanted):
            while not ctx.get(dut.ready):
                await ctx.tick()
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            e = exponentials(Scale(*score).apply(scores.max(1, keepdims=True) - scores, LOG_BITS))
            if number % 2:  # the next tile is there by now, or waits
                await ctx.tick().repeat(300)
            for token in rng.sample(range(len(scores)), len(scores)):
                got = await exponentials_of(ctx, token)
                assert got[:keys] == e[token].tolist(), (number, token)
                assert not any(got[keys:]), "keys that don't exist"
                ctx.set(dut.scale_read.half, number % 2)
                ctx.set(dut.scale_read.token, token)
                ctx.set(dut.scale_read.en, 1)
                await ctx.tick()
                ctx.set(dut.scale_read.en, 0)
                got = ctx.get(dut.scale)
                assert {"mult": got.mult, "shift": got.shift} == scale_of(int(e[token].sum()), *value)
            ctx.set(dut.release, 1)
            await ctx.tick()
            ctx.set(dut.release, 0)
            read.append(number)
        assert not ctx.get(dut.ready)

    simulate(dut, [give, end, take, source], until=lambda: len(read) == len(wanted), max_cycles=8000)
    assert ends == np.cumsum([len(in_order(rng, s)) for s in wanted]).tolist()


def test_a_tile_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="max_keys = 48: a quarter must be a multiple"):
        Softmax(TensorConfig(rows=8, columns=8, pixels=8, lanes=2, max_keys=48))
