# amaranth: UnusedElaboratable=no
import random
import struct
from fractions import Fraction

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, RowFormat
from nearflash_hw.lookup.pooling.lane import Lane
from nearflash_sim.bench import reused, simulate

TINY = DeviceConfig.preset("tiny")
ACC = TINY.lookup.acc_bits


def exact(raw, fmt):
    """The element as a fraction; None: not finite."""
    if fmt == RowFormat.INT8:
        return Fraction(raw & 0xFF)
    kind, code = (np.float32, "<I") if fmt == RowFormat.FP32 else (np.float16, "<H")
    v = np.frombuffer(struct.pack(code, raw), kind)[0]
    return Fraction(float(v)) if np.isfinite(v) else None


def rounded(x):
    """To the nearest integer, ties to even (Python's round of a fraction)."""
    return round(x)


@pytest.mark.parametrize("seed", range(3))
def test_elements_times_factors_rounded_once(seed):
    """Random and corner elements in every format, biases between them, each against exact arithmetic."""
    rng, dut = random.Random(seed), reused(Lane, TINY)
    corners = {RowFormat.FP32: [0, 1 << 31, 1, 0x7F800000, 0x7FC00000, 0x3F800000, 0xBF800001, 0x7F7FFFFF, 0x807FFFFF],
               RowFormat.FP16: [0, 0x8000, 1, 0x7C00, 0x7E00, 0x3C00, 0xBC01, 0x7BFF, 0x83FF],
               RowFormat.INT8: [0, 1, 127, 128, 255]}
    bits = {RowFormat.FP32: 32, RowFormat.FP16: 16, RowFormat.INT8: 8}
    steps, bias = [], None
    for _ in range(300):
        is_bias = rng.random() < 0.2
        fmt = RowFormat.INT8 if is_bias else rng.choice(list(corners))
        raw = rng.choice(corners[fmt]) if rng.random() < 0.3 else rng.getrandbits(bits[fmt])
        add = rng.random() < 0.3
        factor = {"neg": rng.getrandbits(1), "mant": rng.choice([0, 1 << 23, (1 << 24) - 1, rng.getrandbits(24) | 1 << 23]),
                  "exp": rng.randint(-80, 60)}
        limit = rng.randint(8, ACC - 1)
        steps.append((raw, fmt, is_bias, factor, add and not is_bias, limit))
    expected = []
    for raw, fmt, is_bias, f, add, limit in steps:
        x = Fraction(1) if is_bias else exact(raw, fmt)
        if x is None:
            expected.append((None, 1, None))
            if is_bias:
                bias = None
            continue
        c = rounded(x * f["mant"] * Fraction(2) ** f["exp"] * (-1 if f["neg"] else 1))
        over = abs(c) >= 1 << limit
        value = None if over or (add and bias is None) else c + (bias if add else 0)
        if is_bias:
            bias = None if over else c
        expected.append((value, 0, int(over)))
    got = []

    async def process(ctx):
        late = []
        for k in range(len(steps) + dut.LATENCY):
            if k < len(steps):
                raw, fmt, is_bias, factor, *_ = steps[k]
                for port, v in ((dut.raw, raw), (dut.format, fmt), (dut.bias, is_bias), (dut.factor, factor)):
                    ctx.set(port, v)
            late.append(steps[k] if k < len(steps) else None)
            now = late[k - dut.LATE] if k >= dut.LATE else None
            ctx.set(dut.keep_bias, int(bool(now and now[2])))
            ctx.set(dut.add_bias, int(bool(now and now[4])))
            ctx.set(dut.high_mask, (1 << max(ACC, 48)) - (1 << now[5]) if now else 0)
            *_, value, special, over = await ctx.tick().sample(dut.value, dut.not_finite, dut.overflow)
            if k >= dut.LATENCY:
                got.append((value, special, over))

    simulate(dut, [process], until=lambda: len(got) == len(steps), max_cycles=len(steps) + 50)
    for step, (value, special, over), want in zip(steps, got, expected, strict=True):
        assert special == want[1], step
        if want[2] is not None:
            assert over == want[2], step
        if want[0] is not None:
            assert value == want[0], step
    assert sum(w[0] is not None for w in expected) > 50
