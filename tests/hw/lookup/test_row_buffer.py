"""The row buffer alone: rows come out as they went in, each with its exact factors."""

import random

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, RowFormat
from nearflash.reference.fp32 import round24
from nearflash_hw.lookup.pooling.row_buffer import RowBuffer
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")
LANES = TINY.lookup.lanes
ONE = 0x3F800000
#: fp32 patterns: zeros, subnormals, the largest, ones, infinity, NaN
CORNERS = [0, 1 << 31, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, ONE, 0xBF800000, 0x7F800000, 0x7FC00000]


def fp32(bits):
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def tables(rng):
    """Parameters of three tables, one of each format."""
    return [{"format": int(f), "mean": 0, "quads": rng.randint(1, 6), "lsb_exp": rng.choice([-250, -30, 0, 127]),
             "limit": rng.randint(20, 47)} for f in RowFormat]


def row(rng, table, params):
    """(beats of the row, what its ``row`` must say: factor and bias as floats or None where not finite)."""
    elements = 4 * params["quads"]
    pattern = lambda: rng.choice([rng.choice(CORNERS), rng.getrandbits(32)])  # noqa: E731
    scale, bias = pattern(), pattern()
    int8 = params["format"] == RowFormat.INT8
    words = elements >> {RowFormat.FP32: 0, RowFormat.FP16: 1, RowFormat.INT8: 2}[RowFormat(params["format"])]
    content = [rng.getrandbits(32) for _ in range(words)] + ([scale, bias] if int8 else [])
    content += [rng.getrandbits(32)] * (-len(content) % LANES)
    weighted = rng.random() < 0.5
    weight = pattern() if weighted else rng.getrandbits(32)  # means nothing where there is none
    broken = rng.randrange(len(content) // LANES) if rng.random() < 0.3 else None
    slot = rng.randrange(TINY.lookup.sample_slots)
    beats = [{"data": sum(w << 32 * i for i, w in enumerate(content[k : k + LANES])), "slot": slot, "table": table,
              "weight": weight, "weighted": int(weighted), "first": int(k == 0), "last": int(k + LANES == len(content)),
              "error": int(k // LANES == broken)} for k in range(0, len(content), LANES)]
    w = fp32(weight if weighted else ONE)
    of = [fp32(scale), fp32(bias)] if int8 else [1.0]
    finite = bool(np.isfinite([w, *of]).all())
    factors = [float(round24(np.array([f * w]))[0]) if finite else None for f in of]
    media = int(broken is not None) if int8 else None  # of the others the beats tell
    return beats, {"slot": slot, "table": table, "finite": finite, "factors": factors, "media": media}


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_rows_and_their_factors(stall):
    rng = random.Random(7)
    params = tables(rng)
    rows = [row(rng, t, params[t]) for t in (rng.randrange(3) for _ in range(120))]
    base_of = lambda table: (5 * table + 1) % 64  # noqa: E731
    dut = reused(RowBuffer, TINY)
    source = StreamSource(dut.vector, [b for beats, _ in rows for b in beats], stall, seed=1)
    out, taken = StreamSink(dut.row, stall, seed=2), StreamSink(dut.beats, stall, seed=3)
    refused = []

    async def parameters(ctx):
        """Answered in the next cycle and held; while ``hold``, no row begins."""
        while True:
            hold = rng.random() < stall / 2
            ctx.set(dut.hold, hold)
            _, _, asked, table, valid, ready, first = await ctx.tick().sample(
                dut.lookup, dut.lookup_table, dut.vector.valid, dut.vector.ready, dut.vector.payload.first)
            if hold:
                assert not (valid and ready and first)
                refused.append(valid and first)
            if asked:
                ctx.set(dut.params, params[table])
                ctx.set(dut.base, base_of(table))

    simulate(dut, [parameters, source, out, taken], until=lambda: len(out.items) >= len(rows) and len(taken.items) >= sum(
        len(beats) for beats, _ in rows), max_cycles=8000)
    assert source.drained
    assert any(refused) == bool(stall)
    assert [(b["data"], b["last"], b["error"]) for b in taken.items] == [
        (b["data"], b["last"], b["error"]) for beats, _ in rows for b in beats]
    assert len(out.items) == len(rows)
    for got, (_, want) in zip(out.items, rows, strict=True):
        p = params[want["table"]]
        assert {k: got[k] for k in ("slot", "table", "base", "quads", "format", "limit")} == {
            "slot": want["slot"], "table": want["table"], "base": base_of(want["table"]),
            **{k: p[k] for k in ("quads", "format", "limit")}}
        assert got["not_finite"] == (not want["finite"])
        if want["media"] is not None:
            assert got["media"] == want["media"]
        if want["finite"]:
            for name, value in zip(("factor", "bias"), want["factors"], strict=False):
                f = got[name]
                assert f["mant"] == 0 or f["mant"] >= 1 << 23
                assert (-1 if f["neg"] else 1) * float(np.ldexp(float(f["mant"]), f["exp"] + p["lsb_exp"])) == value


@pytest.mark.parametrize("format", list(RowFormat))
def test_a_row_comes_ten_cycles_after_the_beat_that_completes_it(format):
    rng = random.Random(8)
    params = tables(rng)
    beats, _ = row(rng, int(format), params[int(format)])
    dut = reused(RowBuffer, TINY)
    source, out = StreamSource(dut.vector, beats), StreamSink(dut.row)
    taken = []

    async def parameters(ctx):
        cycle = 0
        while True:
            _, _, asked, valid, ready = await ctx.tick().sample(dut.lookup, dut.vector.valid, dut.vector.ready)
            cycle += 1
            if valid and ready:
                taken.append(cycle)
            if asked:
                ctx.set(dut.params, params[int(format)])

    simulate(dut, [parameters, source, out, StreamSink(dut.beats)], until=lambda: bool(out.items), max_cycles=200)
    completes = taken[-1] if format == RowFormat.INT8 else taken[0]
    assert out.cycles[0] - completes == 10 + 2 * (format == RowFormat.INT8)
