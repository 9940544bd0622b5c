"""What surrounds the lookup engine, in Python: host readers, FTL, flash channels, pooling, MLP."""

import random
from dataclasses import replace

from nearflash.contract import DeviceConfig, Node, RowFormat, TableSpec
from nearflash.contract.table import Extent, magic_divide
from nearflash_sim.bench import StreamSink, StreamSource

MASK = (1 << 32) - 1


def small_config(graph=True, n_batch=2, outputs=2, **kw):
    """The tiny preset with a model of 3 dense features, tables of dimension 12 and 8, and ``outputs`` logits."""
    c = DeviceConfig.preset("tiny")
    nodes = (Node("x", "dense", 3), Node("e", "tables", 20, tables=(0, 1)), Node("f", "fc", outputs, inputs=("x", "e")))
    c = replace(c, host=replace(c.host, max_batch=8), lookup=replace(c.lookup, max_bag=20, **kw))
    return replace(c, mlp=replace(c.mlp, graph=nodes, n_batch=n_batch)) if graph else c


def two_tables():
    """Table 0: int8, two extents; table 1: fp32, one extent."""
    return {
        0: TableSpec(rows=150, dim=12, format=RowFormat.INT8, headroom=4,
                     extents=(Extent(0, 40, 3), Extent(3, 8, 5))),
        1: TableSpec(rows=60, dim=8, format=RowFormat.FP32, headroom=5, extents=(Extent(0, 100, 4),)),
    }


def table_write(config, table, spec, is_open=True, **override):
    """The payload of the table bus for ``spec``."""
    magic, shift = magic_divide(spec.rows_per_page(config))
    extents = [{"first_page": e.first_page, "lba": e.lba, "pages": e.pages} for e in spec.extents]
    extents += [{"first_page": 0, "lba": 0, "pages": 0}] * (config.lookup.max_extents - len(extents))
    return {"table": table, "open": int(is_open), "rows": spec.rows, "dim": spec.dim, "format": int(spec.format),
            "mean": 0, "headroom": spec.headroom, "stride": spec.stride_beats(config),
            "rows_per_page": spec.rows_per_page(config), "magic": magic, "shift": shift, "lsb_exp": spec.lsb_exp,
            "quant_mult": 0, "quant_shift": 0, "extents": extents, "n_extents": len(spec.extents), **override}


def broadcast(dut, writes):
    """A process that sends table writes, one every other cycle, starting at once."""
    async def process(ctx):
        for w in writes:
            ctx.set(dut.table, w)
            ctx.set(dut.table_valid, 1)
            await ctx.tick()
            ctx.set(dut.table_valid, 0)
            await ctx.tick()
    return process


def pool_word(row, weight, element):
    """The stand-in for pooling's arithmetic: order-independent, sensitive to every byte, the weight and the element."""
    return (sum((k + 1) * b for k, b in enumerate(row)) * (weight | 1) + element) & MASK


class PoolingModel:
    """Retires vectors after a random delay, checks the protocol, emits stand-in elements when told to drain.

    ``flags(row)``: faults (names of retire's flags) of a vector."""

    def __init__(self, config, dut, specs, flags=lambda row: (), delay=10, stall=0.0, seed=0):
        self.config, self.specs, self.flags, self.delay = config, specs, flags, delay
        self.rng = random.Random(seed)
        self.row = b""
        self.first = True
        self.pending = []
        slots = config.lookup.sample_slots
        self.rows = [{} for _ in range(slots)]  # slot -> table -> [(row, weight)]
        self.bags = [[] for _ in range(slots)]
        self.drains = []
        self.retire = StreamSource(dut.retire, stall=stall, seed=seed)
        self.pooled = StreamSource(dut.pooled, stall=stall, seed=seed + 1)
        self.drained = StreamSource(dut.drained, stall=stall, seed=seed + 2)
        self.vector = StreamSink(dut.vector, stall, seed + 3, on_item=self.beat)
        self.bag = StreamSink(dut.bag, stall, seed + 4, on_item=self.on_bag)
        self.drain = StreamSink(dut.drain, stall, seed + 5, on_item=self.drains.append)
        self.actors = [self.retire, self.pooled, self.drained, self.vector, self.bag, self.drain, self.clock]

    def on_bag(self, b):
        self.bags[b["slot"]].append((b["table"], b["count"]))

    def beat(self, v):
        assert v["first"] == int(self.first), "first is wrong"
        self.row += v["data"].to_bytes(self.config.beat_bytes, "little")
        self.first = bool(v["last"])
        if v["last"]:
            row, self.row = self.row, b""
            self.rows[v["slot"]].setdefault(v["table"], []).append((row, v["weight"]))
            flags = dict.fromkeys(self.flags(row), 1)
            self.pending.append([self.rng.randint(0, self.delay), {
                "slot": v["slot"], "table": v["table"], "media": v["error"],
                "not_finite": flags.get("not_finite", 0), "overflow": flags.get("overflow", 0)}])

    async def clock(self, ctx):
        while True:
            await ctx.tick()
            for p in [*self.pending]:
                p[0] -= 1
                if p[0] < 0:
                    self.pending.remove(p)
                    self.retire.items.append(p[1])
            if self.drains and self.pooled.drained:
                self.emit(self.drains.pop(0))

    def emit(self, d):
        slot, sample, tables = d["slot"], d["sample"], d["sample"]["tables"]
        # nothing of the slot may still be on its way
        assert all(p[1]["slot"] != slot for p in self.pending)
        assert all(i["slot"] != slot for i in self.retire.items[self.retire.sent :])
        assert [t for t, _ in self.bags[slot]] == list(range(tables)), "bags missing before the drain"
        rows = self.rows[slot]
        if not d["bad"]:
            assert {t: len(r) for t, r in rows.items()} == {t: n for t, n in self.bags[slot] if n}
        for t in range(tables):
            dim = self.specs[t].dim
            for e in range(dim):
                value = sum(pool_word(r, w, e) for r, w in rows.get(t, [])) & MASK
                self.pooled.items.append({
                    "value": 0x7FC00000 if d["bad"] else value, "table": t, "last_of_table": int(e == dim - 1),
                    "last_of_sample": int(e == dim - 1 and t == tables - 1), "bad": d["bad"], "sample": sample})
        self.rows[slot], self.bags[slot] = {}, []
        self.drained.items.append({"slot": slot})

    @property
    def idle(self):
        return (not self.pending and not self.drains and self.retire.drained and self.pooled.drained
                and self.drained.drained and not any(self.rows) and not any(self.bags) and self.first)


def mlp_logit(dense, elements, o):
    """The stand-in for the MLP's arithmetic."""
    total = sum((k + 1) * v for k, v in enumerate(dense)) + sum((k + 7) * v for k, v in enumerate(elements))
    return (total * 2654435761 + o) & MASK


class MlpModel:
    """Takes dense features and pooled elements, ``buffered`` groups at most; answers each group in random order."""

    def __init__(self, config, dut, delay=60, stall=0.0, seed=0):
        self.outputs = config.mlp.graph[-1].width
        self.width = 3, sum(n.width for n in config.mlp.graph if n.kind == "tables")
        self.delay, self.rng = delay, random.Random(seed)
        self.dense_words, self.elements, self.dense_done, self.done = [], [], [], []
        self.room = config.mlp.buffered * config.mlp.n_batch  # samples of dense features it holds
        self.groups = []
        self.logit = StreamSource(dut.logit, stall=stall, seed=seed)
        self.dense = dut.dense
        self.stall = stall
        self.pooled = StreamSink(dut.mlp_pooled, stall, seed + 2, on_item=self.on_pooled)
        self.actors = [self.logit, self.pooled, self.take_dense, self.clock]

    async def take_dense(self, ctx):
        while True:
            ready = self.room > 0 and self.rng.random() >= self.stall
            ctx.set(self.dense.ready, ready)
            _, _, valid, p = await ctx.tick().sample(self.dense.valid, self.dense.payload)
            if valid and ready:
                self.dense_words.append(int(p.value))
                if p.last:
                    assert len(self.dense_words) == self.width[0]
                    self.dense_done.append(self.dense_words)
                    self.dense_words = []
                    self.room -= 1

    def on_pooled(self, e):
        self.elements.append(e["value"])
        if not e["last_of_sample"]:
            return
        assert len(self.elements) == self.width[1]
        s = e["sample"]
        assert not s["lookup"]
        assert len(self.done) == s["n"], "sample out of place in its group"
        self.done.append((self.dense_done.pop(0), self.elements))
        self.elements = []
        if s["n"] == s["nb"]:
            logits = [{"value": mlp_logit(*d, o), "n": n, "nb": s["nb"], "o": o}
                      for n, d in enumerate(self.done) for o in range(self.outputs)]
            self.rng.shuffle(logits)
            self.groups.append([self.delay, len(self.done), logits])
            self.done = []

    async def clock(self, ctx):
        while True:
            await ctx.tick()
            if self.groups:
                self.groups[0][0] -= 1
                if self.groups[0][0] < 0:
                    _, n, logits = self.groups.pop(0)
                    self.logit.items += logits
                    self.room += n

    @property
    def idle(self):
        return not (self.dense_words or self.elements or self.dense_done or self.done or self.groups
                    or not self.logit.drained)


