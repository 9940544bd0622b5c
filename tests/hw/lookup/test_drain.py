"""The drain alone: what a slot's accumulators hold comes out as fp32, whatever the accumulators' port does."""

import random
from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import DeviceConfig
from nearflash.reference.fp32 import int_to_fp32, ratio_to_fp32
from nearflash_hw.lookup.pooling.drain import Drain
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

NAN = 0x7FC00000
READ_LATENCY = 8  # cycles from a read that is granted to its values


def config(lanes=2, modes=("sum", "mean")):
    base = DeviceConfig.preset("tiny")
    return replace(base, beat_bytes=4 * lanes, lookup=replace(base.lookup, lanes=lanes, modes=modes))


class Tables:
    """What surrounds the drain: the tables' parameters, the accumulators and their touched bits."""

    def __init__(self, cfg, rng, dut, stall):
        self.cfg, self.rng, self.dut, self.stall = cfg, rng, dut, stall
        lanes = cfg.lookup.lanes
        self.params = [{"format": 0, "mean": int(mean and "mean" in cfg.lookup.modes), "quads": quads,
                        "lsb_exp": rng.choice([-250, -149, -20, 0, 127]), "limit": 40}
                       for mean, quads in ((0, 1), (1, 3), (0, 2), (1, 1))]
        self.words = [-(-4 * p["quads"] // lanes) for p in self.params]
        self.base = [sum(self.words[:t]) for t in range(len(self.params))]
        half = 1 << cfg.lookup.acc_bits - 1
        word_bits = len(dut.base)
        self.values = {
            slot << word_bits | at: [rng.choice([0, 1, -1, half - 1, -half, rng.randrange(-half, half) >> rng.randrange(40)])
                                     for _ in range(lanes)]
            for slot in range(cfg.lookup.sample_slots) for at in range(sum(self.words))}
        self.touched = {(slot, t): rng.random() < 0.8 for slot in range(cfg.lookup.sample_slots)
                        for t in range(len(self.params))}
        self.cleared = []
        self.coming = []  # values on their way
        self.table_bits = len(dut.lookup_table)

    async def process(self, ctx):
        dut, cycle = self.dut, 0
        while True:
            granted = self.rng.random() >= self.stall
            ctx.set(dut.read_granted, granted and ctx.get(dut.read))
            at = ctx.get(dut.clear_at)
            slot, table = at >> self.table_bits, at & (1 << self.table_bits) - 1
            ctx.set(dut.touched, self.touched.get((slot, table), False))
            now = self.coming and self.coming[0][0] <= cycle
            ctx.set(dut.values_valid, bool(now))
            if now:
                ctx.set(dut.values, self.coming.pop(0)[1])
            _, _, read, taken, address, lookup, asked, clear, at = await ctx.tick().sample(
                dut.read, dut.read_granted, dut.read_addr, dut.lookup, dut.lookup_table, dut.clear, dut.clear_at)
            cycle += 1
            if read and taken:
                self.coming.append((cycle + READ_LATENCY, self.values[address]))
            if lookup and asked < len(self.params):
                ctx.set(dut.params, self.params[asked])
                ctx.set(dut.base, self.base[asked])
            if clear:
                self.cleared.append((at >> self.table_bits, at & (1 << self.table_bits) - 1))

    def pooled(self, slot, tables, counts, bad):
        """Per table the fp32 bits of the elements."""
        out = []
        for t in range(tables):
            p, word_bits = self.params[t], len(self.dut.base)
            sums = [v for w in range(self.words[t]) for v in self.values[slot << word_bits | self.base[t] + w]]
            sums = np.array(sums[: 4 * p["quads"]])
            if bad:
                out.append([NAN] * len(sums))
            elif not self.touched[slot, t]:
                out.append([0] * len(sums))
            else:
                value = ratio_to_fp32(sums, np.array([counts[t]] * len(sums)), p["lsb_exp"]) if p["mean"] else int_to_fp32(
                    sums, p["lsb_exp"])
                out.append([int(v) for v in value.view(np.uint32)])
        return out


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(("lanes", "modes"), [(2, ("sum",)), (4, ("sum", "mean")), (8, ("sum", "mean"))])
def test_slots_come_out_in_order(lanes, modes, stall):
    """Slots with any number of tables, also none, some untouched, some bad; corner values; parameters that change."""
    cfg, rng = config(lanes, modes), random.Random(lanes)
    dut = reused(Drain, cfg)
    around = Tables(cfg, rng, dut, stall)
    slots = [*range(cfg.lookup.sample_slots)]
    rng.shuffle(slots)
    bags, drains, want, clears = [], [], [], []
    for i, slot in enumerate(slots):
        tables, bad = (0 if i == 1 else rng.randint(1, 4)), int(i == 2)
        counts = [rng.choice([1, 3, cfg.lookup.max_bag]) for _ in range(tables)]
        bags += [{"slot": slot, "table": t, "count": c} for t, c in enumerate(counts)]
        sample = {"n": 0, "nb": 0, "last": i & 1, "lookup": i >> 1 & 1, "tables": tables}
        drains.append({"slot": slot, "bad": bad, "sample": sample})
        elements = around.pooled(slot, tables, counts, bad)
        want += [{"value": v, "table": t, "last_of_table": int(k == len(of) - 1), "bad": bad, "sample": sample,
                  "last_of_sample": int(k == len(of) - 1 and t == tables - 1)}
                 for t, of in enumerate(elements) for k, v in enumerate(of)]
        clears += [(slot, t) for t in range(tables) if around.touched[slot, t]]
    bag, drain = StreamSource(dut.bag, bags), StreamSource(dut.drain, [], stall, seed=1)
    pooled, drained = StreamSink(dut.pooled, stall, seed=2), StreamSink(dut.drained, stall, seed=3)

    async def later(ctx):
        while not bag.drained:
            await ctx.tick()
        ctx.set(dut.hold, 1)
        drain.items += drains
        await ctx.tick().repeat(20)
        assert not drain.sent, "nothing new while the parameters change"
        ctx.set(dut.hold, 0)

    simulate(dut, [around, bag, later, drain, pooled, drained], max_cycles=12_000, settle=60,
             until=lambda: len(drained.items) >= len(slots) and len(pooled.items) >= len(want))
    assert pooled.items == want
    assert [d["slot"] for d in drained.items] == slots
    assert around.cleared == clears
    assert not around.coming


def test_an_element_per_cycle():
    cfg = config(2, ("sum",))
    rng, dut = random.Random(1), reused(Drain, cfg)
    around = Tables(cfg, rng, dut, 0.0)
    drain, pooled = StreamSource(dut.drain), StreamSink(dut.pooled)
    drain.items += [{"slot": s, "bad": 0, "sample": {"n": 0, "nb": 0, "last": 0, "lookup": 0, "tables": 4}} for s in (0, 1)]
    total = 2 * sum(4 * p["quads"] for p in around.params)
    simulate(dut, [around, drain, pooled, StreamSink(dut.drained)], until=lambda: len(pooled.items) == total, max_cycles=400)
    assert pooled.cycles[-1] - pooled.cycles[0] < total + 8, "one element per cycle, two cycles per table mostly hidden"
