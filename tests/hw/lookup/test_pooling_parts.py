"""The arithmetic of the pooling block, part by part, against exact models."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.reference.fp32 import int_to_fp32, ratio_to_fp32, round24
from nearflash_hw.lookup.pooling.divider import MeanDivider
from nearflash_hw.lookup.pooling.row_scale import RowScale
from nearflash_hw.primitives.float32 import IntToFp32
from nearflash_sim.bench import StreamSink, StreamSource, simulate


class DividerAndConverter(wiring.Component):
    """As in the drain: quotients go straight to fp32."""

    def __init__(self, config):
        self.divider = d = MeanDivider(config)
        self.convert = c = IntToFp32(d.out_bits, tag=d.s.element_tag, exp_bits=10)
        super().__init__({"i": In(stream.Signature(d.i.p.shape())), "o": Out(stream.Signature(c.o.p.shape()))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.divider, m.submodules.convert = self.divider, self.convert
        wiring.connect(m, wiring.flipped(self.i), self.divider.i)
        wiring.connect(m, self.divider.o, self.convert.i)
        wiring.connect(m, self.convert.o, wiring.flipped(self.o))
        return m


@pytest.mark.parametrize(("acc_bits", "max_bag", "stall"), [(40, 65535, 0.0), (48, 4096, 0.3), (64, 15, 0.0)])
def test_means(acc_bits, max_bag, stall):
    base = DeviceConfig.preset("tiny")
    cfg = replace(base, lookup=replace(base.lookup, acc_bits=acc_bits, max_bag=max_bag))
    rng = random.Random(acc_bits)
    lo, hi = -(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1
    items = [(s, c, e) for s in (0, 1, -1, lo, hi) for c in (0, 1, 3, max_bag) for e in (-250, -149, 0, 127)]
    for _ in range(20):  # a tie but for the dividend's last bit, which the divider never shifts in when acc_bits is large
        c = rng.randint(1, min(15, max_bag))
        s = c * (rng.getrandbits(24) | 1 << 24 | 1) << acc_bits - 30
        items += [(s + d, c, -20) for d in (-1, 0, 1)]
    while len(items) < 260:
        s, c = rng.randint(lo, hi) >> rng.randrange(acc_bits), rng.randint(1, max_bag)
        if rng.random() < 0.4:  # exact quotients and ties between two floats
            s = max(lo, min(hi, c * (rng.getrandbits(25) | 1) << rng.randrange(8)))
        place = rng.choice((-149, -126, 0, 127))
        items.append((s, c, max(-250, min(127, place - abs(s).bit_length() + rng.randint(0, 20)))))
    means = [rng.random() < 0.8 for _ in items]
    dut = DividerAndConverter(cfg)
    src = StreamSource(dut.i, [{"value": s, "count": c, "e": e, "mean": int(mean), "tag": {"table": k % 8}}
                               for k, ((s, c, e), mean) in enumerate(zip(items, means, strict=True))], stall, seed=1)
    sink = StreamSink(dut.o, stall, seed=2)
    simulate(dut, [src, sink], until=lambda: len(sink.items) == len(items), max_cycles=15_000, settle=60)
    assert len(sink.items) == len(items)
    for k, ((s, c, e), mean, got) in enumerate(zip(items, means, sink.items, strict=True)):
        want = ratio_to_fp32(np.array([s]), np.array([c]), e) if mean else int_to_fp32(np.array([s]), e)
        assert got["value"] == int(want.view(np.uint32)[0]), (s, c, e, mean)
        assert got["tag"]["table"] == k % 8


def test_row_scale():
    rng = random.Random(1)
    edge = [0, 1 << 31, 1, 3, 0x7FFFFF, 0x800000, 0x80000005, 0x3F800000, 0xBF7FFFFF, 0x3F800001, 0x7F7FFFFF, 0x7F800000,
            0x7FC00000]
    pairs = [(a, b) for a in edge for b in edge]
    pairs += [(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(200)]
    # 12-bit by 13-bit odd mantissas make products just over 24 bits: ties
    pairs += [(0x3F800000 | (rng.getrandbits(11) | 1) << 12, 0x3F800000 | (rng.getrandbits(12) | 1) << 11)
              for _ in range(200)]
    dut = RowScale(9)
    got = []

    async def process(ctx):
        for k in range(len(pairs) + dut.latency + 5):
            a, b = pairs[k] if k < len(pairs) else (0, 0)
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            ctx.set(dut.tag, k % 512)
            ctx.set(dut.valid, k < len(pairs))
            if ctx.get(dut.o_valid):
                got.append(tuple(ctx.get(x) for x in (dut.neg, dut.mant, dut.exp, dut.not_finite, dut.o_tag)))
            if k == dut.latency:
                assert len(got) == 1
            await ctx.tick()

    simulate(dut, [process], until=lambda: len(got) == len(pairs), max_cycles=1000)
    for k, ((a, b), (neg, mant, exp, not_finite, tag)) in enumerate(zip(pairs, got, strict=True)):
        x, y = (float(np.array([v], np.uint32).view(np.float32)[0]) for v in (a, b))
        assert tag == k % 512
        assert not_finite == (not (np.isfinite(x) and np.isfinite(y)))
        if not not_finite:
            want = float(round24(np.array([x * y]))[0])
            assert (-1.0 if neg else 1.0) * np.ldexp(float(mant), exp) == want
            assert mant == 0 or mant >= 1 << 23


