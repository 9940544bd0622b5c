"""The pooling block against its integer model: formats, weights, modes, interleaving, stalls, corner values, rates."""

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.table import PoolMode, RowFormat, TableSpec
from nearflash.reference.pooling import choose_window, pool_bags
from nearflash_hw.lookup.pooling import Pooling
from nearflash_hw.lookup.pooling.accumulators import Accumulators
from nearflash_hw.lookup.pooling.issue import Issue
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

FP32, FP16, INT8 = RowFormat
SUM, MEAN = PoolMode
ONE = 0x3F800000


def config(lanes=2, **lookup):
    base = DeviceConfig.preset("tiny")
    return replace(base, beat_bytes=4 * lanes, lookup=replace(base.lookup, **{"lanes": lanes, **lookup}))


def bits(x):
    return int(np.float32(x).view(np.uint32))


def rows_of(rng, spec, n):
    """Random rows as stored, uint8 [n, row_bytes], with some zeros of both signs and subnormals among them."""
    if spec.format == INT8:
        q = rng.integers(0, 256, (n, spec.dim), dtype=np.uint8)
        sb = (rng.standard_normal((n, 2)) * (0.01, 0.5)).astype("<f4")
        return np.concatenate([q, sb.view(np.uint8).reshape(n, 8)], axis=1)
    v = (rng.standard_normal((n, spec.dim)) * 2.0 ** rng.integers(-14, 3, (n, spec.dim))).astype(
        "<f4" if spec.format == FP32 else "<f2")
    special = np.array([0.0, -0.0, 6e-8, -6e-8], v.dtype)
    pick = rng.random(v.shape) < 0.1
    v[pick] = rng.choice(special, pick.sum())
    return v.view(np.uint8).reshape(n, spec.format.row_bytes(spec.dim))


@dataclass
class Sample:
    bags: list  # per table: (raw rows uint8 [n, row_bytes], weights float32 [n] or None)
    slot: int = -1
    outstanding: int = 0
    bad: bool = False
    media: int | None = None  # the last row of this table fails to read
    flags: list = field(default_factory=list)


def beats(cfg, rng, raw, slot, table, weight, error=0):
    """The stream beats of one row; the padding after it is noise."""
    size = cfg.beat_bytes
    content = raw.tobytes() + bytes(rng.integers(0, 256, -len(raw) % size, dtype=np.uint8))
    n = len(content) // size
    return [{"data": int.from_bytes(content[i * size : (i + 1) * size], "little"), "slot": slot, "table": table,
             "weight": ONE if weight is None else bits(weight), "weighted": int(weight is not None),
             "first": int(i == 0), "last": int(i == n - 1), "error": int(error and i == n - 1)} for i in range(n)]


class Bench:
    """Plays the lookup engine: slots to samples, rows in random order, a drain when all rows are retired."""

    def __init__(self, cfg, specs, samples, stall=0.0, out_stall=None, seed=0, dut=None):
        self.cfg, self.specs, self.samples = cfg, specs, samples
        self.rng, self.np_rng = random.Random(seed), np.random.default_rng(seed)
        self.dut = dut or reused(Pooling, cfg)
        out_stall = stall if out_stall is None else out_stall
        self.vectors = StreamSource(self.dut.vector, [], stall, seed=seed + 1)
        self.bags = StreamSource(self.dut.bag, [], 0.0)
        self.drains = StreamSource(self.dut.drain, [], 0.0)
        self.retire = StreamSink(self.dut.retire, stall, seed=seed + 2, on_item=self.retired)
        self.drained = StreamSink(self.dut.drained, stall, seed=seed + 3, on_item=self.freed)
        self.pooled = StreamSink(self.dut.pooled, out_stall, seed=seed + 4)
        self.free = list(range(cfg.lookup.sample_slots))
        self.waiting = list(samples)
        self.open = {}
        self.rows = []  # rows of open samples not yet sent
        self.order, self.retire_order = [], []  # samples in drain order; rows in the order sent

    async def tables(self, ctx):
        for t, s in enumerate(self.specs):
            ctx.set(self.dut.table, {
                "table": t, "open": 1, "dim": s.dim, "format": int(s.format), "mean": int(s.mode), "headroom": s.headroom,
                "lsb_exp": s.lsb_exp})
            ctx.set(self.dut.table_valid, 1)
            await ctx.tick()
            ctx.set(self.dut.table_valid, 0)
        await self.feed(ctx)

    async def feed(self, ctx):
        while True:
            while self.free and self.waiting:
                self.admit(self.waiting.pop(0))
            if self.rows and self.vectors.sent + 4 >= len(self.vectors.items):
                sample, t, raw, w, error = self.rows.pop(self.rng.randrange(len(self.rows)))
                self.vectors.items += beats(self.cfg, self.np_rng, raw, sample.slot, t, w, error)
                self.retire_order.append((sample.slot, t))
            else:
                await ctx.tick()

    def admit(self, sample):
        sample.slot = self.free.pop(self.rng.randrange(len(self.free)))
        self.open[sample.slot] = sample
        for t, (raw, weights) in enumerate(sample.bags):
            self.bags.items.append({"slot": sample.slot, "table": t, "count": len(raw)})
            for i, r in enumerate(raw):
                error = t == sample.media and i == len(raw) - 1
                self.rows.append((sample, t, r, None if weights is None else weights[i], error))
            sample.outstanding += len(raw)
        if not sample.outstanding:
            self.drain(sample)

    def drain(self, sample):
        self.order.append(sample)
        self.drains.items.append({"slot": sample.slot, "bad": int(sample.bad), "sample": self.sample_field(sample)})

    def sample_field(self, sample):
        i = next(k for k, x in enumerate(self.samples) if x is sample)
        return {"n": i % 2, "nb": 0, "last": i & 1, "lookup": i >> 1 & 1, "tables": len(sample.bags)}

    def retired(self, item):
        sample = self.open[item["slot"]]
        sample.outstanding -= 1
        sample.flags.append(item)
        sample.bad |= bool(item["not_finite"] or item["overflow"] or item["media"])
        if not sample.outstanding:
            self.drain(sample)

    def freed(self, item):
        del self.open[item["slot"]]
        self.free.append(item["slot"])

    def run(self, max_cycles=6000):
        cycles = simulate(self.dut, [self.tables, self.vectors, self.bags, self.drains, self.retire, self.drained,
                                     self.pooled],
                          until=lambda: len(self.drained.items) == len(self.samples), max_cycles=max_cycles, settle=40)
        self.check()
        return cycles

    def check(self):
        assert [(r["slot"], r["table"]) for r in self.retire.items] == self.retire_order
        assert [d["slot"] for d in self.drained.items] == [s.slot for s in self.order]
        assert len(self.drained.items) == len(self.samples)
        at = 0
        for sample in self.order:
            tables = len(sample.bags)
            for t, (raw, weights) in enumerate(sample.bags):
                spec = self.specs[t]
                want, info = pool_bags(spec, self.cfg.lookup.acc_bits, raw, np.array([len(raw)]), weights)
                flags = [f for f in sample.flags if f["table"] == t]
                assert any(f["not_finite"] for f in flags) == info.not_finite[0]
                if not info.not_finite[0]:
                    assert any(f["overflow"] for f in flags) == info.overflow[0]
                assert sum(f["media"] for f in flags) == int(t == sample.media)
                if sample.bad:
                    want = np.full_like(want, np.nan)
                for j in range(spec.dim):
                    last = j == spec.dim - 1
                    assert self.pooled.items[at] == {
                        "value": bits(want[0, j]), "table": t, "last_of_table": int(last),
                        "last_of_sample": int(last and t == tables - 1), "bad": int(sample.bad),
                        "sample": self.sample_field(sample)}, (t, j)
                    at += 1
        assert at == len(self.pooled.items)


def random_samples(rng, specs, n, bag=4, weighted=False, tables=None):
    out = []
    for _ in range(n):
        bags = []
        for s in specs[: tables or len(specs)]:
            k = int(rng.integers(0, bag + 1))
            w = (rng.standard_normal(k) * 2).astype(np.float32) if weighted else None
            bags.append((rows_of(rng, s, k), w))
        out.append(Sample(bags))
    return out


def table(fmt, mode, dim, acc_bits=48, bag=16):
    lsb, headroom = choose_window(40.0, bag, acc_bits, 10.0, fmt)
    return TableSpec(1000, dim, fmt, mode, lsb, headroom)


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fmt", [FP32, FP16, INT8])
def test_one_format(fmt, weighted, stall):
    specs = [table(fmt, SUM, 12), table(fmt, MEAN, 8)]
    samples = random_samples(np.random.default_rng(1), specs, 5, weighted=weighted)
    Bench(config(), specs, samples, stall, seed=int(fmt)).run()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", [SUM, MEAN])
@pytest.mark.parametrize("formats", [("fp32",), ("fp16",), ("int8",), ("fp32", "int8")])
def test_generated_for_some_formats_and_one_mode(formats, mode, weighted):
    cfg = config(formats=formats, modes=(mode.name.lower(),))
    specs = [table(RowFormat[f.upper()], mode, dim) for f in formats for dim in (12, 8)]
    Bench(cfg, specs, random_samples(np.random.default_rng(3), specs, 4, weighted=weighted), 0.1, seed=len(formats)).run()


@pytest.mark.parametrize(("lanes", "acc_bits", "dims"), [
    (2, 40, (4, 16, 8, 4)), (4, 48, (4, 12, 32, 8)), (8, 64, (12, 4, 28, 8)), (8, 48, (24, 20, 4, 12))])
def test_mixed_tables_and_slots(lanes, acc_bits, dims):
    formats = [(INT8, SUM), (FP32, MEAN), (FP16, SUM), (INT8, MEAN)]
    specs = [table(f, mode, d, acc_bits) for (f, mode), d in zip(formats, dims, strict=True)]
    rng = np.random.default_rng(lanes)
    samples = random_samples(rng, specs, 4) + random_samples(rng, specs, 3, weighted=True, tables=3)
    samples += random_samples(rng, specs, 2, tables=1) + random_samples(rng, specs, 1, bag=0)
    Bench(config(lanes, acc_bits=acc_bits, sample_slots=4), specs, samples, 0.1, seed=lanes).run()


def test_sample_without_tables():
    specs = [table(FP32, SUM, 4)]
    samples = [Sample([]), *random_samples(np.random.default_rng(2), specs, 2), Sample([])]
    Bench(config(), specs, samples).run()


def test_poisoned_samples_do_not_touch_others():
    specs = [table(FP32, SUM, 8), table(INT8, SUM, 8), table(FP16, MEAN, 4)]
    rng = np.random.default_rng(9)
    samples = random_samples(rng, specs, 10, bag=3)
    for s in samples:
        s.bags[0] = (rows_of(rng, specs[0], 3), None)
        s.bags[1] = (rows_of(rng, specs[1], 2), None)
    for k, (at, value) in enumerate([(2, np.nan), (7, -np.inf), (0, 3e38)]):
        samples[2 * k].bags[0][0][1].view("<f4")[at] = value
    samples[1].bags[1][0][0][8:].view("<f4")[:] = (np.inf, 0)
    samples[3].bags[1][0][1][8:].view("<f4")[:] = (0, np.nan)
    samples[5].media, samples[8].media = 0, 1
    samples[7].bags[2] = (rows_of(rng, specs[2], 1), np.array([np.inf], np.float32))
    bench = Bench(config(), specs, samples, 0.2)
    bench.run()
    assert [s.bad for s in samples] == [True, True, True, True, True, True, False, True, True, False]


def pool_one(fmt, mode, lsb, headroom, rows, weights=None, acc_bits=48, count=None):
    """Pool the given rows (arrays of elements, INT8: (q, scale, bias)) in one bag of one sample."""
    if fmt == INT8:
        raw = np.stack([np.frombuffer(bytes(q) + np.array(sb, "<f4").tobytes(), np.uint8) for q, *sb in rows])
        dim = len(rows[0][0])
    else:
        a = np.array(rows, "<f4" if fmt == FP32 else "<f2")
        raw, dim = a.view(np.uint8).reshape(len(rows), -1), a.shape[1]
    spec = TableSpec(1000, dim, fmt, mode, lsb, headroom)
    w = None if weights is None else np.array(weights, np.float32)
    return Sample([(raw, w)]), spec


def test_corner_values():
    """Each case in its own table; the model decides what is right."""
    sub, tiny, fmax = float(np.float32(1e-45)), 2.0**-126, float(np.finfo(np.float32).max)
    cases = [
        # subnormals, the finest and a far too fine window, signed zeros
        pool_one(FP32, SUM, -149, 4, [[sub, -sub, tiny, 0.0], [-0.0, 3 * sub, tiny - sub, -0.0]]),
        pool_one(FP32, SUM, -160, 4, [[sub, -sub, 5 * sub, 0.0]] * 2, [0.5, -0.25]),
        pool_one(FP32, MEAN, -149, 4, [[sub, -sub, 5 * sub, tiny], [0.0, 0.0, 0.0, sub], [0.0] * 4]),
        # results below fp32's range, and above it
        pool_one(FP32, SUM, -250, 0, [[sub, -sub, 0.0, tiny]], [1e-30]),
        pool_one(FP32, SUM, 90, 4, [[fmax, fmax, -fmax, fmax / 2], [fmax, -fmax, -fmax, fmax / 2]]),
        # ties to even, both signs, and their neighbours
        pool_one(FP32, SUM, 0, 4, [[0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 0.49999997, 0.50000006]]),
        pool_one(FP16, SUM, 0, 4, [[0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 6e-8, 65504]]),
        pool_one(FP16, SUM, -24, 4, [[6e-8, -6e-8, 65504, -65504]] * 3, [1.0, 3.4, 1e-3]),
        # sums that need rounding to 24 bits: ties again
        pool_one(FP32, SUM, 0, 2, [[2.0**24, 2.0**24, 2.0**25, -(2.0**24)], [1.0, 3.0, 2.0, -1.0]]),
        # INT8: subnormal scale and bias, cancellation, RN24
        pool_one(INT8, SUM, -160, 4, [([255, 1, 0, 128], sub, -sub), ([3, 5, 7, 9], -tiny / 3, tiny)]),
        pool_one(INT8, SUM, -30, 8, [([255, 1, 0, 128], 1 / 3, -1 / 7)] * 3, [1 / 3, 0.0, -1 / 11]),
        pool_one(INT8, MEAN, -20, 8, [([255, 1, 0, 128], 2.0**-21, 2.0**-21)] * 3),
        # just below and just above one half after the largest right shift that can still round up
        pool_one(FP32, SUM, 1, 4, [[1 - 2.0**-24, -1 + 2.0**-24, 0.5, 1.0]], [1 - 2.0**-24]),
        pool_one(FP32, SUM, 0, 4, [[1 - 2.0**-24, -1 + 2.0**-24, 0.5, 1.0]], [1 - 2.0**-24]),
        # shifts beyond both ends of the window
        pool_one(FP32, SUM, 127, 16, [[1.0, fmax, -1e-30, sub]] * 2),
        pool_one(INT8, SUM, 127, 16, [([255, 1, 0, 128], fmax, -fmax)], [fmax]),
    ]
    for limit in (2.0**47, np.nextafter(np.float32(2.0**47), np.float32(0))):  # the largest contribution and beyond
        cases += [pool_one(FP32, SUM, 0, 0, [[limit, 0, 0, 0]]), pool_one(FP32, SUM, 0, 0, [[0, -limit, 0, 0]]),
                  pool_one(FP32, SUM, -250, 0, [[0, 0, -limit, 0]]), pool_one(FP16, SUM, 0, 3, [[1, 0, 0, 0]], [limit / 8]),
                  pool_one(INT8, SUM, 0, 0, [([1, 0, 0, 0], limit / 2, 0)]),
                  pool_one(INT8, SUM, 0, 0, [([0, 0, 0, 0], 0, -limit / 2)])]
    specs = [spec for _, spec in cases]
    # A sample per case that uses the case's table alone; the tables before it stay empty.
    samples = []
    for k, (s, _) in enumerate(cases):
        empty = [(np.zeros((0, specs[t].format.row_bytes(4)), np.uint8), None) for t in range(k)]
        samples.append(Sample(empty + s.bags))
    cfg = config(2, max_tables=32, accumulators=128)
    Bench(cfg, specs, samples, 0.0, seed=4).run(max_cycles=12_000)
    # Overflow: the INT8 row far above its window, everything at the limit, and what no window that fine can hold.
    assert [k for k, s in enumerate(samples) if s.bad] == [15, 16, 17, 18, 19, 20, 21, 24]


def saturated(fmt, dim, lanes=2, weighted=False, rows=30):
    """Cycles from the first to the last retire of one bag's rows back to back, and beats per row."""
    spec = table(fmt, SUM, dim, bag=64)
    rng = np.random.default_rng(6)
    w = np.ones(rows, np.float32) * 2 if weighted else None
    bench = Bench(config(lanes, max_dim=64), [spec], [Sample([(rows_of(rng, spec, rows), w)])])
    bench.run()
    cycles = bench.retire.cycles
    return (cycles[-1] - cycles[4]) / (rows - 5), spec.stride_beats(bench.cfg)


@pytest.mark.parametrize("lanes", [2, 4, 8])
@pytest.mark.parametrize(("fmt", "dim", "per_beat"), [(FP32, 64, 1), (FP16, 64, 2), (INT8, 64, 4), (INT8, 32, 4)])
def test_rate(lanes, fmt, dim, per_beat):
    per_row, beats_per_row = saturated(fmt, dim, lanes, weighted=True)
    assert per_row <= beats_per_row * per_beat
    if fmt == FP32:
        assert per_row == beats_per_row


def test_many_one_word_rows_behind_each_other():
    """Queues fill on the way in (same address again and again) and on the way out (slow retire), nothing is lost."""
    per_row, _ = saturated(FP32, 4, lanes=4, rows=60)
    assert per_row == Accumulators.HAZARD
    specs = [table(FP32, SUM, 4, bag=64)] * 4
    rng = np.random.default_rng(8)
    bench = Bench(config(4), specs, [Sample([(rows_of(rng, s, 20), None) for s in specs]) for _ in range(2)])
    bench.retire.stall = 0.8
    bench.run()


def test_drain_reads_take_every_other_cycle_at_most():
    cfg = config(2)
    dut = Issue(cfg)
    rows = StreamSource(dut.row, [{"quads": 4, "format": int(FP32), "table": k % 2, "base": 32 * (k % 2)}
                                  for k in range(6)])
    beats = StreamSource(dut.beats, [{"data": k, "last": int(k % 8 == 7)} for k in range(48)])
    seen = []

    async def process(ctx):
        ctx.set(dut.read, 1)
        ctx.set(dut.read_addr, 5)
        while True:
            _, _, valid, word = await ctx.tick().sample(dut.word_valid, dut.word)
            seen.append((valid, word.read, word.raw[0], word.addr) if valid else None)

    simulate(dut, [rows, beats, process], until=lambda: beats.drained, max_cycles=200, settle=3)
    sent = [w[2] for w in seen if w and not w[1]]
    assert sent == list(range(48))
    first, last = (next(k for k in order if seen[k] and not seen[k][1])
                   for order in (range(len(seen)), range(len(seen) - 1, -1, -1)))
    assert [bool(w and w[1]) for w in seen[first : last + 1]] == [bool(k % 2) for k in range(last - first + 1)]
    assert all(w[3] == 5 for w in seen if w and w[1])


def test_drain_does_not_stop_other_slots():
    """While slot A drains into a blocked sink, slot B's rows keep their rate; a draining slot emits one per cycle."""
    specs = [table(FP32, SUM, 64, bag=64)]
    rng = np.random.default_rng(7)
    samples = [Sample([(rows_of(rng, specs[0], 1), None)]), Sample([(rows_of(rng, specs[0], 24), None)])]
    bench = Bench(config(2), specs, samples, out_stall=0.95, seed=3)
    bench.run()
    cycles = bench.retire.cycles
    assert cycles[-1] - cycles[1] < 24 * 32 + 2 * 32  # a drain's 32 reads cost at most one cycle each

    quick = Bench(config(2), specs, samples=[Sample([(rows_of(rng, specs[0], 2), None)])])
    quick.run()
    assert quick.pooled.cycles[-1] - quick.pooled.cycles[0] == 63


def test_tables_reopened_with_other_dimensions():
    """Bases follow a table change between two batches."""
    rng = np.random.default_rng(11)
    specs = [table(FP32, SUM, 8), table(FP16, SUM, 12)]
    bench = Bench(config(), specs, random_samples(rng, specs, 2))
    later = [table(INT8, SUM, 20), table(FP16, SUM, 12)]
    second = Bench(config(), later, random_samples(rng, later, 3), dut=bench.dut)
    first_done = []

    async def phase_two(ctx):
        while len(bench.drained.items) < 2:
            await ctx.tick()
        await ctx.tick().repeat(5)
        first_done.append((len(bench.pooled.items), len(bench.retire.items)))
        bench.pooled.on_item, bench.retire.on_item, bench.drained.on_item = None, second.retired, second.freed
        second.vectors, second.bags, second.drains = bench.vectors, bench.bags, bench.drains
        await second.tables(ctx)

    simulate(bench.dut, [bench.tables, phase_two, bench.vectors, bench.bags, bench.drains, bench.retire, bench.drained,
                         bench.pooled], until=lambda: len(bench.drained.items) == 5, max_cycles=3000, settle=40)
    n_pooled, n_retired = first_done[0]
    second.pooled.items, second.retire.items = bench.pooled.items[n_pooled:], bench.retire.items[n_retired:]
    second.drained.items = bench.drained.items[2:]
    bench.pooled.items, bench.retire.items = bench.pooled.items[:n_pooled], bench.retire.items[:n_retired]
    bench.drained.items = bench.drained.items[:2]
    bench.check()
    second.check()
