"""Pooling against torch.nn.EmbeddingBag and the integer model.

Where the window represents every contribution, a result is the exact sum (or quotient) rounded once to fp32: checked with
fractions, and against EmbeddingBag in float64, which is exact for these sums. In a window too coarse for that, results are
the integer model's and within its error bound of torch's.
"""

import random
from fractions import Fraction

import cocotb
import numpy as np
import torch
from nearflash.contract import RowFormat, TableSpec
from nearflash.contract.table import PoolMode
from nearflash.reference.pooling import choose_window, decode_rows, error_bound, pool_bags
from tops import BEAT, CONFIG, pooling
from verbs import PATTERNS, Bench, beats_of

FORMATS = {f.name.lower(): f for f in RowFormat}
ACC_BITS, SLOTS = CONFIG.lookup.acc_bits, CONFIG.lookup.sample_slots
BAG = 8  # lookups at most
ONE = 0x3F800000
DIMS = (8, 12)  # of table 0 (SUM) and table 1 (MEAN)
MAX_ABS, MAX_WEIGHT = 16.0, 2.0


def make_rows(rng, spec: TableSpec, n: int) -> np.ndarray:
    """Rows as stored, whose weighted values are multiples of 2**-27 below MAX_ABS * MAX_WEIGHT."""
    if spec.format == RowFormat.INT8:
        q = rng.integers(0, 256, (n, spec.dim), dtype=np.uint8)
        tail = np.stack([rng.integers(1, 1 << 10, n) / 2.0**16, rng.integers(-(1 << 15), 1 << 15, n) / 2.0**14], 1)
        return np.concatenate([q, tail.astype("<f4").view(np.uint8)], axis=1)
    bits = 24 if spec.format == RowFormat.FP32 else 11
    v = rng.integers(-(1 << bits) + 1, 1 << bits, (n, spec.dim)) * 2.0 ** (3 - bits) * 2.0 ** -rng.integers(0, 4, (n, 1))
    return v.astype("<f4" if spec.format == RowFormat.FP32 else "<f2").view(np.uint8)


def nearest_fp32(x: Fraction) -> np.float32:
    """``x`` rounded to nearest even, from its definition."""
    near = np.float32(float(x))
    three = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(three, key=lambda c: (abs(Fraction(float(c)) - x), int(c.view(np.uint32)) & 1))


class Samples:
    """Plays the lookup engine: a slot for each sample, rows of open samples interleaved, a drain once all are retired."""

    def __init__(self, b: Bench, samples, inputs, outputs, seed):
        self.samples, self.rng = samples, random.Random(seed)
        self.free, self.open, self.rows, self.next = list(range(SLOTS)), {}, [], 0
        self.left, self.order, self.sent = {}, [], []
        self.vector = b.source("vector", [], inputs)
        self.bag, self.drain = b.source("bag", [], inputs), b.source("drain", [], inputs)
        self.retire = b.sink("retire", outputs, self.retired)
        self.drained = b.sink("drained", outputs, self.freed)
        self.pooled = b.sink("pooled", outputs)
        self.feed()

    def feed(self):
        while self.free and self.next < len(self.samples):
            k, self.next = self.next, self.next + 1
            slot = self.free.pop()
            self.open[slot] = k
            self.left[slot] = 0
            for t, (raw, weights) in enumerate(self.samples[k]):
                self.bag.items.append({"slot": slot, "table": t, "count": len(raw)})
                self.left[slot] += len(raw)
                self.rows += [(slot, t, r, w) for r, w in zip(raw, weights if weights is not None else [None] * len(raw),
                                                              strict=True)]
            if not self.left[slot]:
                self.end(slot)
        self.rng.shuffle(self.rows)
        for slot, t, raw, w in self.rows:
            content = raw.tobytes() + b"\xa5" * (-len(raw) % BEAT)  # padding is not zero
            words = beats_of(content, BEAT)
            self.vector.items += [
                {"data": d, "slot": slot, "table": t, "weight": ONE if w is None else int(w.view(np.uint32)),
                 "weighted": int(w is not None), "first": int(i == 0), "last": int(i == len(words) - 1), "error": 0}
                for i, d in enumerate(words)]
            self.sent.append((slot, t))
        self.rows.clear()

    def meta(self, k):
        return {"n": 0, "nb": 0, "last": k & 1, "lookup": 1, "tables": len(self.samples[k])}

    def end(self, slot):
        self.order.append(self.open[slot])
        self.drain.items.append({"slot": slot, "bad": 0, "sample": self.meta(self.open[slot])})

    def retired(self, item):
        self.left[item["slot"]] -= 1
        if not self.left[item["slot"]]:
            self.end(item["slot"])

    def freed(self, item):
        del self.open[item["slot"]]
        self.free.append(item["slot"])
        self.feed()

    @property
    def done(self):
        return (len(self.drained.items) >= len(self.samples)
                and len(self.pooled.items) >= sum(DIMS) * len(self.samples))


def torch_bag(spec, raw, weights) -> torch.Tensor:
    """EmbeddingBag over the looked-up rows, in float64, rounded to fp32."""
    table = torch.from_numpy(decode_rows(raw, spec.format, spec.dim).exact())
    bag = torch.nn.EmbeddingBag.from_pretrained(table, mode="sum").double()
    w = None if weights is None else torch.from_numpy(weights.astype(np.float64))
    total = bag(torch.arange(len(raw)), torch.tensor([0]), per_sample_weights=w)[0]
    return (total / max(1, len(raw)) if spec.mode == PoolMode.MEAN else total).float()


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(fmt=list(FORMATS), weighted=[False, True], inputs=PATTERNS, outputs=PATTERNS)
async def pooled_vectors(dut, fmt, weighted, inputs, outputs):
    await run(dut, FORMATS[fmt], weighted, inputs, outputs, coarse=0)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(fmt=list(FORMATS), coarse=[18, 26])
async def coarse_windows(dut, fmt, coarse):
    await run(dut, FORMATS[fmt], False, "flow", "random", coarse)


async def run(dut, fmt, weighted, inputs, outputs, coarse):
    seed = f"{fmt}{weighted}{inputs}{outputs}{coarse}"
    rng = np.random.default_rng(list(seed.encode()))
    lsb, headroom = choose_window(MAX_ABS, BAG, ACC_BITS, MAX_WEIGHT, fmt)
    specs = [TableSpec(1000, dim, fmt, mode, lsb + coarse, headroom)
             for dim, mode in zip(DIMS, PoolMode, strict=True)]
    samples = []
    for k in range(4):
        bags = []
        for spec in specs:
            n = int(rng.integers(1, BAG + 1)) if k else 0  # the first sample's bags are empty
            w = (rng.integers(-(1 << 7), 1 << 7, n) / 2.0**6).astype(np.float32) if weighted else None
            bags.append((make_rows(rng, spec, n), w))
        samples.append(bags)
    b = Bench(dut, pooling())
    await b.begin()
    await b.open_tables(CONFIG, specs)
    play = Samples(b, samples, inputs, outputs, seed)
    await b.finish(lambda: play.done, 6_000)

    assert [(r["slot"], r["table"]) for r in play.retire.items] == play.sent
    assert not any(r["not_finite"] or r["overflow"] or r["media"] for r in play.retire.items)
    items = iter(play.pooled.items)
    for k in play.order:
        for t, (spec, (raw, weights)) in enumerate(zip(specs, samples[k], strict=True)):
            ints, _ = pool_bags(spec, ACC_BITS, raw, np.array([len(raw)]), weights)
            exact = decode_rows(raw, spec.format, spec.dim).exact()
            ours = torch_bag(spec, raw, weights)
            for j in range(spec.dim):
                got = next(items)
                last = j == spec.dim - 1
                assert got == {"value": int(ints[0, j].view(np.uint32)), "table": t, "last_of_table": int(last), "bad": 0,
                               "last_of_sample": int(last and t == len(specs) - 1), "sample": play.meta(k)}, (k, t, j)
                value = np.uint32(got["value"]).view(np.float32)
                w = np.ones(len(raw)) if weights is None else weights.astype(np.float64)
                want = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(exact[:, j], w, strict=True)),
                           Fraction(0)) / (max(1, len(raw)) if spec.mode == PoolMode.MEAN else 1)
                if coarse:
                    bound = error_bound(spec, len(raw), float(value))
                    assert abs(Fraction(float(value)) - want) <= Fraction(bound)
                    assert abs(float(value) - float(ours[j])) <= bound * (1 + 1e-6)
                else:
                    assert value == nearest_fp32(want), (k, t, j, value, float(want))
                    if spec.mode == PoolMode.SUM:
                        assert value == ours[j].item(), "not what EmbeddingBag gives"
                    else:
                        assert abs(float(value) - ours[j].item()) <= abs(ours[j].item()) * 2.0**-23
    assert next(items, None) is None
