"""fp32 conversions in gateware against their NumPy models, with stalls on both sides."""

import random

import numpy as np
import pytest
from amaranth.lib import data
from nearflash.reference.fp32 import int_to_fp32, quantize_fp32
from nearflash_hw.primitives.float32 import Fp32Quantizer, IntToFp32
from nearflash_sim.bench import StreamSink, StreamSource, simulate

TAG = data.StructLayout({"a": 5, "b": 4})


def run(dut, items, stall):
    src, sink = StreamSource(dut.i, items, stall, seed=1), StreamSink(dut.o, stall, seed=2)
    simulate(dut, [src, sink], until=lambda: len(sink.items) >= len(items), max_cycles=60 + 4 * len(items), settle=30)
    assert len(sink.items) == len(items)
    if not stall:  # one per cycle
        assert sink.cycles[-1] - sink.cycles[0] == len(items) - 1
    for i, o in zip(items, sink.items, strict=True):
        assert o["tag"] == i["tag"]
    return sink.items


def tag(rng):
    return {"a": rng.randrange(32), "b": rng.randrange(16)}


def bits(x):
    return int(np.float32(x).view(np.uint32))


def quantizer_items(rng, n, out_bits):
    special = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x7F7FFFFF]
    items = [{"value": v, "mult": mu, "shift": sh} for v in special for mu in (0, 1, 65535) for sh in (-128, 0, 127)]
    limit = (1 << (out_bits - 1)) - 1
    for k in (0.5, 1.5, 2.5, limit - 0.5, limit, limit + 0.5, limit + 0.499, limit + 1):  # ties and the clamp
        for s in (k, -k, np.nextafter(np.float32(k), np.float32(0)), np.nextafter(np.float32(k), np.float32(1e9))):
            items += [{"value": bits(s), "mult": 1, "shift": 0}, {"value": bits(s * 2), "mult": 16384, "shift": 15}]
    while len(items) < n:
        e = rng.randint(-40, 30)
        value = rng.getrandbits(32) if rng.random() < 0.1 else bits(rng.uniform(-1, 1) * 2.0**e)
        mult = rng.getrandbits(16)
        exact = max(1, mult).bit_length() + e
        shift = max(-128, min(127, exact - rng.randint(-3, out_bits + 2)))
        items.append({"value": value, "mult": mult, "shift": shift})
    return [{**i, "tag": tag(rng)} for i in items]


@pytest.mark.parametrize(("out_bits", "stall"), [(8, 0.0), (8, 0.4), (16, 0.2), (24, 0.0)])
def test_quantizer(out_bits, stall):
    items = quantizer_items(random.Random(out_bits), 700, out_bits)
    got = [o["q"] for o in run(Fp32Quantizer(out_bits, tag=TAG), items, stall)]
    want = [int(quantize_fp32(np.array([i["value"]], np.uint32).view(np.float32), i["mult"], i["shift"], out_bits)[0])
            for i in items]
    assert got == want


def int_items(rng, n, in_bits, exp_bits):
    lo, hi = -(1 << (in_bits - 1)), (1 << (in_bits - 1)) - 1
    emin, emax = -(1 << (exp_bits - 1)), (1 << (exp_bits - 1)) - 1
    items = [(i, e) for i in (0, 1, -1, 2, lo, hi, lo + 1) for e in (emin, -126, -24, 0, 100, emax)]
    for top in ((1 << 23), (1 << 23) + 1, (1 << 24) - 1):  # ties, one above and below
        for width in range(1, in_bits - 25):
            for low in (1 << (width - 1), (1 << (width - 1)) - 1, (1 << (width - 1)) + 1):
                if rng.random() < 0.3:
                    items.append((rng.choice((1, -1)) * (top << width | low), rng.randint(-60, 60)))
    while len(items) < n:
        i = rng.getrandbits(rng.randint(1, in_bits - 1)) * rng.choice((1, -1))
        place = rng.choice((-150, -149, -126, 0, 128, rng.randint(-160, 130)))  # subnormals, overflow
        e = place - abs(i).bit_length() + rng.randint(-3, 26)
        items.append((i, max(emin, min(emax, e))))
    return [{"i": i, "e": e, "tag": tag(rng)} for i, e in items]


@pytest.mark.parametrize(("in_bits", "exp_bits", "stall"), [(32, 8, 0.0), (48, 10, 0.3), (64, 10, 0.0), (12, 8, 0.2)])
def test_int_to_fp32(in_bits, exp_bits, stall):
    items = int_items(random.Random(in_bits), 800, in_bits, exp_bits)
    got = [o["value"] for o in run(IntToFp32(in_bits, tag=TAG, exp_bits=exp_bits), items, stall)]
    want = [bits(int_to_fp32(np.array([i["i"]], np.int64), i["e"])[0]) for i in items]
    assert got == want


def test_without_tag():
    src = StreamSource((dut := IntToFp32(20)).i, [{"i": -5, "e": 3}])
    sink = StreamSink(dut.o)
    simulate(dut, [src, sink], until=lambda: len(sink.items) == 1, max_cycles=40)
    assert sink.items[0]["value"] == bits(-40.0)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("make", [lambda: Fp32Quantizer(1), lambda: Fp32Quantizer(25), lambda: IntToFp32(1)])
def test_widths_are_checked(make):
    with pytest.raises(ValueError, match="must be from 2"):
        make()
