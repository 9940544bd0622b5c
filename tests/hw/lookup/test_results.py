"""Results to host memory and completions in order."""

import random

import pytest
from lookup_models import small_config
from nearflash.contract import Status
from nearflash_hw.lookup.logit_store import LogitStore
from nearflash_hw.lookup.results import Results
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

DIMS = (4, 8)
BASE, SPACING = 0x10000, 0x2000
GUARD = 0xA5


def samples_of(config, batch, lookup):
    size = config.mlp.n_batch
    return [{"n": b % size, "nb": min(size, batch - b // size * size) - 1, "last": int(b == batch - 1),
             "lookup": int(lookup), "tables": len(DIMS)} for b in range(batch)]


class Bench:
    """Feeds Results the way the rest of the engine would; knows what must be in memory and on ``completion``."""

    def __init__(self, config, commands, stall, seed, fail=lambda addr: False):
        self.config, self.rng = config, random.Random(seed)
        self.dut = dut = reused(Results, config)
        self.outputs = config.mlp.graph[-1].width if config.mlp.graph else 0
        self.memory = MemoryModel(config.beat_bytes, stall=stall, seed=seed, fail=fail)
        self.completions, self.content, self.groups = [], {}, []
        self.logit = StreamSource(dut.logit, stall=stall, seed=seed + 1) if config.mlp.graph else None
        self.pending = StreamSource(dut.pending, stall=stall, seed=seed + 2)
        self.executed = StreamSource(dut.executed, stall=stall, seed=seed + 3)
        self.status = StreamSource(dut.sample_status, stall=stall, seed=seed + 4)
        self.pooled = StreamSource(dut.pooled, stall=stall, seed=seed + 5)
        self.mlp = StreamSink(dut.mlp_pooled, stall, seed + 6, on_item=self.on_mlp)
        self.completion = StreamSink(dut.completion, stall, seed + 7)
        self.to_mlp = []
        self.mlp_delay = 30
        self.waiting = []  # [delay, logits]
        self.queued = []  # commands not sent yet: at most infer_depth are in flight
        for i, c in enumerate(commands):
            self.command(i, **c)

    def command(self, i, lookup=False, batch=1, outcome=None, executed=None, bad=None, write_error=False,
                unread=False):
        """``unread``: one of the command's logits says that weights could not be read."""
        rng, addr = self.rng, BASE + i * SPACING
        good = {"status": 0, "dw0": 0, "dw1": 0}
        final = outcome or executed
        feed = {"pending": {"lookup": int(lookup), "qid": i % 2, "cid": 100 + i, "batch": batch, "out_addr": addr,
                            "outcome": outcome or good}}
        if not outcome:
            feed["executed"] = executed or good
            at = rng.randrange(batch)
            feed["status"], feed["pooled"], logits, words = [], [], [], []
            for b, s in enumerate(samples_of(self.config, batch, lookup)):
                status, table = (bad or {}).get(b, (0, 0))
                final = final or ({"status": status, "dw0": 0, "dw1": table} if status else None)
                feed["status"].append({"status": status, "table": table, "sample": s})
                for t, dim in enumerate(DIMS):
                    for e in range(dim):
                        v = rng.getrandbits(32)
                        words += [v] if lookup else []
                        feed["pooled"].append({
                            "value": v, "table": t, "last_of_table": int(e == dim - 1), "bad": int(bool(status)),
                            "last_of_sample": int(e == dim - 1 and t == len(DIMS) - 1), "sample": s})
                if not lookup:
                    values = [rng.getrandbits(32) for _ in range(self.outputs)]
                    words += values
                    logits += [{"value": v, "n": s["n"], "nb": s["nb"], "o": o, "error": int(unread and b == at and o == 0)}
                               for o, v in enumerate(values)]
                    if s["n"] == s["nb"]:
                        rng.shuffle(logits)
                        self.groups.append(logits)
                        logits = []
            if lookup or not (final or unread):
                for k, w in enumerate(words):
                    self.content[addr + 4 * k] = w
            self.to_mlp += [] if lookup else feed["pooled"]
        if write_error:
            final = final or {"status": Status.DATA_TRANSFER_ERROR, "dw0": 0, "dw1": 0}
        if unread and not lookup:
            final = final or {"status": Status.UNRECOVERED_READ, "dw0": 0, "dw1": 0}
        self.completions.append({"qid": i % 2, "cid": 100 + i, **(final or good)})
        self.queued.append(feed)
        for k in range(0, SPACING, 8):
            self.memory.write(addr + k, bytes([GUARD] * 8))

    def on_mlp(self, e):
        if e["last_of_sample"] and e["sample"]["n"] == e["sample"]["nb"]:
            self.waiting.append([self.mlp_delay, self.groups.pop(0)])

    async def feed(self, ctx):
        sent = 0
        while True:
            await ctx.tick()
            if self.queued and sent - len(self.completion.items) < self.config.host.infer_depth:
                f = self.queued.pop(0)
                sent += 1
                self.pending.items.append(f["pending"])
                if "executed" in f:
                    # the announcement is taken first; pass 2 may end before or after the first samples are drained
                    while not self.pending.drained:
                        await ctx.tick()
                    self.status.items += f["status"]
                    self.pooled.items += f["pooled"]
                    await ctx.tick().repeat(self.rng.randint(1, 30))
                    self.executed.items.append(f["executed"])
            if self.waiting:
                self.waiting[0][0] -= 1
                if self.waiting[0][0] <= 0:
                    self.logit.items += self.waiting.pop(0)[1]

    def run(self, max_cycles=6000):
        sources = [s for s in (self.logit, self.pending, self.executed, self.status, self.pooled) if s]
        cycles = simulate(self.dut, [*sources, self.mlp, self.completion, self.feed,
                                     self.memory.write_port(self.dut.host_write)],
                          until=lambda: len(self.completion.items) == len(self.completions), max_cycles=max_cycles)
        assert self.completion.items == self.completions
        assert all(s.drained for s in sources)
        assert self.memory.pending == 0
        assert self.mlp.items == self.to_mlp
        return cycles

    def check_memory(self):
        for i in range(len(self.completions)):
            for k in range(0, SPACING, 4):
                a = BASE + i * SPACING + k
                want = self.content.get(a)
                got = self.memory.read(a, 4)
                assert got == (bytes([GUARD] * 4) if want is None else want.to_bytes(4, "little")), hex(a)


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("n_batch", [1, 2])
def test_random_commands(stall, n_batch):
    rng = random.Random(31 + n_batch)
    config = small_config(n_batch=n_batch, outputs=3)  # so that a command can end within a beat
    commands = []
    for _ in range(40):
        c = {"lookup": rng.random() < 0.4, "batch": rng.randint(1, config.host.max_batch)}
        fault = rng.choice(["none", "none", "pass 1", "pass 2", "sample", "samples", "pass 2 and sample", "weights",
                            "weights and sample", "weights and pass 2"])
        c["unread"] = "weights" in fault
        if fault == "pass 1":
            c["outcome"] = {"status": Status.INDEX_OUT_OF_RANGE, "dw0": rng.getrandbits(30), "dw1": 1}
        if "pass 2" in fault:
            c["executed"] = {"status": Status.BAD_BATCH, "dw0": 5, "dw1": 0}
        if "sample" in fault:
            c["bad"] = {rng.randrange(c["batch"]): (rng.choice([Status.ROW_UNMAPPED, Status.ROW_NOT_FINITE]), k)
                        for k in range(3 if fault == "samples" else 1)}
        commands.append(c)
    bench = Bench(config, commands, stall, seed=5)
    bench.run(30000)
    bench.check_memory()


def test_lookup_only_device():
    config = small_config(graph=False)
    bench = Bench(config, [{"lookup": True, "batch": b} for b in (1, 7, 3)] + [
        {"outcome": {"status": Status.NO_PROGRAM, "dw0": 0, "dw1": 0}}], 0.2, seed=6)
    bench.run()
    bench.check_memory()


def test_write_errors_fail_the_command():
    config = small_config()
    bad = {BASE + 8, BASE + SPACING + 16}
    bench = Bench(config, [{"batch": 4, "write_error": True}, {"lookup": True, "batch": 8, "write_error": True},
                           {"batch": 4}, {"lookup": True, "batch": 2}], 0.2, seed=7, fail=lambda a: a in bad)
    bench.run()
    bench.check_memory()


def test_the_next_infer_reaches_the_mlp_while_this_one_waits_and_a_lookup_holds():
    config = small_config()
    bench = Bench(config, [{"batch": 2}, {"batch": 2}, {"lookup": True, "batch": 2}], 0.0, seed=8)
    bench.mlp_delay = 300
    seen = {}

    async def watch(ctx):
        for cycle in range(10**6):
            await ctx.tick()
            if len(bench.mlp.items) == 2 * 2 * sum(DIMS):
                seen.setdefault("forwarded", cycle)
            if bench.pooled.items and len(bench.completion.items) < 2:
                assert bench.pooled.sent <= 2 * 2 * sum(DIMS), "a lookup's element passed an unfinished command"
            if bench.completion.items:
                seen.setdefault("first", cycle)

    sources = [bench.logit, bench.pending, bench.executed, bench.status, bench.pooled]
    simulate(bench.dut, [*sources, bench.mlp, bench.completion, bench.feed, watch,
                         bench.memory.write_port(bench.dut.host_write)],
             until=lambda: len(bench.completion.items) == 3, max_cycles=3000)
    assert seen["forwarded"] < seen["first"]
    assert bench.completion.items == bench.completions
    bench.check_memory()


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_bank_is_not_filled_again_before_its_last_word_is_out(outputs):
    """Logits of later commands are at the door while both banks are full, and while each is slowly written out."""
    config = small_config(n_batch=1, outputs=outputs)
    dut = reused(LogitStore, config)
    batches = [3, 8, 1, 8, 2, 1]
    values = [[1000 * c + k for k in range(b * outputs)] for c, b in enumerate(batches)]
    logits = [{"value": v, "n": 0, "nb": 0, "o": k % outputs, "error": 0} for vs in values for k, v in enumerate(vs)]
    commands, source = StreamSource(dut.command, batches), StreamSource(dut.logit, logits)
    words = []

    async def write_out(ctx):
        for n in range(len(values)):
            await ctx.tick().until(dut.full)
            await ctx.tick().repeat(60)  # whatever could come in has
            held = sum(map(len, values[n : n + 2]))
            assert source.sent <= sum(map(len, values[:n])) + held + 2, "more was taken than two banks hold"
            ctx.set(dut.send, 1)
            await ctx.tick()
            ctx.set(dut.send, 0)
            last = 0
            while not last:
                await ctx.tick().repeat(20)
                ctx.set(dut.word.ready, 1)
                value, last = await ctx.tick().sample(dut.word.payload.value, dut.word.payload.last).until(dut.word.valid)
                words.append(value)
                ctx.set(dut.word.ready, 0)
            assert len(words) == sum(map(len, values[: n + 1]))
            ctx.set(dut.drop, 1)
            await ctx.tick()
            ctx.set(dut.drop, 0)

    simulate(dut, [commands, source, write_out], until=lambda: len(words) == sum(map(len, values)), max_cycles=6000)
    assert words == [v for vs in values for v in vs]


def test_words_are_written_at_one_per_cycle():
    config = small_config()
    bench = Bench(config, [{"lookup": True, "batch": 8}] * 2, 0.0, seed=9)
    assert bench.run() < 2 * 8 * sum(DIMS) + 150
