"""The row cache between a flash, a merge and a DRAM in Python."""

import random
from dataclasses import replace

import pytest
from lookup_models import small_config
from nearflash.contract import RowCacheConfig
from nearflash_hw.lookup.row_cache import RowCache
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

WORDS = 1 << 64
ONES = WORDS - 1
LINE_BEATS = 4
CACHED = RowCacheConfig(lines=16, ways=4, line_bytes=LINE_BEATS * 8)
MOST = 7  # of a line's count


def config_of(cache=CACHED):
    return replace(small_config(graph=False), row_cache=cache)


class World:
    """What surrounds the cache. ``rows``: [(ppn, column, beats)]; lookups of them are taken one after the other, with a
    tag each; a row that is not found passes after up to ``latency`` cycles, with what flash holds at some time until then.

    Flash's content of a page is a number that its beats are derived from; None: erased. ``history[ppn]``: (content, cycle
    from which flash has it, cycle in which the ERASE that ended it was reported or None)."""

    def __init__(self, config, lookups, stall=0.0, seed=0, latency=60, fail=lambda addr: False, in_flight=16,
                 pause=0, read_stall=None, bad=()):
        self.config, self.rng, self.stall, self.latency = config, random.Random(seed), stall, latency
        self.bad = bad  # pages whose rows flash gives with an error on their first beat
        self.pause = pause  # before a tag that has passed is used again
        self.dut = reused(RowCache, config)
        self.cycle, self.enabled, self.erased = 0, 1, 0
        self.history = {ppn: [[ppn, 0, None]] for ppn, *_ in lookups}
        self.memory = MemoryModel(config.beat_bytes, latency=9, stall=stall, seed=seed + 1, fail=fail)
        self.lookups, self.offered = lookups, 0
        self.look = StreamSource(self.dut.look, stall=stall, seed=seed + 2)
        self.taken = StreamTaken(self.dut.look, self)
        self.found = StreamSink(self.dut.found, stall, seed + 3, on_item=self.on_found)
        self.read = StreamSource(self.dut.read, stall=stall if read_stall is None else read_stall, seed=seed + 4)
        self.source = StreamSink(self.dut.source, stall, seed + 5, on_item=self.on_beat)
        self.free = list(range(min(in_flight, config.lookup.tags)))
        self.at_tag, self.row, self.flying, self.passing = {}, [], [], []
        self.hits, self.answers, self.seen = [], [], {"hit": 0, "kept": 0, "dropped": 0}
        self.done = 0
        self.actors = [self.clock, self.drive, self.watch, self.look, self.taken, self.found, self.read, self.source,
                       self.memory.read_port(self.dut.mem_read), self.memory.write_port(self.dut.mem_write)]

    def beats(self, content, row):
        """The row's beats where its page holds ``content``."""
        _, column, beats = row
        return [ONES if content is None else hash((content, column + k)) % WORDS for k in range(beats)]

    def content(self, ppn):
        return self.history[ppn][-1][0]

    async def clock(self, ctx):
        ctx.set(self.dut.enable, 1)
        while True:
            ctx.set(self.dut.enable, self.enabled)
            ctx.set(self.dut.erased, self.erased)
            await ctx.tick()
            self.cycle += 1
            while self.free and self.offered < len(self.lookups) and len(self.look.items) - self.look.sent < 2:
                self.free.pop()
                row = self.lookups[self.offered]
                self.offered += 1
                self.look.items.append({"slot": 0, "table": 0, "weight": 0, "weighted": 0,
                                        "row": dict(zip(("ppn", "column", "beats"), row, strict=True))})

    def on_found(self, f):
        row = tuple(f["placed"]["row"][k] for k in ("ppn", "column", "beats"))
        tag = next(t for t in range(self.config.lookup.tags) if t not in self.at_tag)
        n = len(self.answers)
        assert row == self.lookups[n], "answers are in the order of the lookups"
        assert not (f["hit"] and f["keep"])
        self.answers.append(f["hit"])
        self.at_tag[tag] = (n, row, f["keep"])
        if f["hit"]:
            self.read.items.append({"line": f["line"], "beats": row[2], "tag": tag})
        else:
            self.flying.append([self.rng.randint(1, self.latency), self.rng.randint(0, self.latency), tag, None])

    def on_beat(self, b):
        self.row.append(b)
        assert all(x["tag"] == b["tag"] for x in self.row)
        if b["last"]:
            n, row, _ = self.at_tag[b["tag"]]
            got, self.row = self.row, []
            error = any(x["error"] for x in got)
            if not error:
                self.check(n, row, [x["data"] for x in got])
            self.hits.append((n, error))
            self.passing.append((b["tag"], [(x["data"], x["error"]) for x in got]))

    def check(self, n, row, got):
        """A row found in the cache was flash's at some time since its lookup was taken."""
        now = [c for c, begin, end in self.history[row[0]] if end is None or end >= self.taken.cycles[n]]
        assert got in [self.beats(c, row) for c in now], f"lookup {n}: stale or wrong"

    async def drive(self, ctx):
        """The way from flash, and past pooling."""
        while True:
            for f in self.flying:
                f[0] -= 1
                if f[0] == 0:
                    f[3] = self.content(self.at_tag[f[2]][1][0])
                elif f[0] < -f[1]:
                    row = self.at_tag[f[2]][1]
                    words = self.beats(f[3], row)
                    self.passing.append((f[2], [(x, int(k == 0 and row[0] in self.bad)) for k, x in enumerate(words)]))
            self.flying = [f for f in self.flying if f[0] >= -f[1]]
            if not self.passing:
                await ctx.tick()
                continue
            tag, beats = self.passing.pop(self.rng.randrange(len(self.passing)))
            _, row, keep = self.at_tag[tag]
            for k, (word, error) in enumerate(beats):
                while self.rng.random() < self.stall:
                    await ctx.tick()
                last = int(k == len(beats) - 1)
                ctx.set(self.dut.beat, {"data": word, "first": int(k == 0), "last": last, "error": error})
                ctx.set(self.dut.entry, {"keep": keep, "row": dict(zip(("ppn", "column", "beats"), row, strict=True))})
                ctx.set(self.dut.passes, 1)
                await ctx.tick()
                ctx.set(self.dut.passes, 0)
            del self.at_tag[tag]
            for _ in range(self.pause):
                await ctx.tick()
            self.free.append(0)
            self.done += 1

    async def watch(self, ctx):
        d = self.dut
        async for _, _, hit, kept, dropped in ctx.tick().sample(d.hit, d.kept, d.dropped):
            for name, pulse in (("hit", hit), ("kept", kept), ("dropped", dropped)):
                self.seen[name] += pulse

    def run(self, *actors, max_cycles=30_000):
        simulate(self.dut, [*self.actors, *actors], max_cycles=max_cycles, settle=300,
                 until=lambda: self.done == len(self.lookups))
        assert not self.at_tag
        assert not self.row
        assert self.memory.pending == 0
        assert self.seen["hit"] == sum(self.answers) == len(self.hits)
        return self.answers


class StreamTaken:
    """The cycles in which a stream's transfers take place."""

    def __init__(self, stream, world):
        self.stream, self.world, self.cycles = stream, world, []

    async def process(self, ctx):
        async for _, _, valid, ready in ctx.tick().sample(self.stream.valid, self.stream.ready):
            if valid and ready:
                self.cycles.append(self.world.cycle)


def skewed(rng, n, pages=12, places=((0, 4), (4, 4), (8, 2), (10, 1), (12, 4))):
    """``n`` lookups of rows of several lengths, some asked for much more often than others."""
    rows = [(p, *place) for p in range(pages) for place in places]
    return [rows[min(int(rng.expovariate(0.12)), len(rows) - 1)] for _ in range(n)]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("ways", [1, 4])
def test_rows_that_are_found_are_flashs(stall, ways):
    rng = random.Random(ways)
    world = World(config_of(replace(CACHED, ways=ways)), skewed(rng, 400), stall, seed=3)
    answers = world.run()
    assert sum(answers) > 40
    assert world.seen["kept"] > 10


def test_a_line_is_not_written_to_before_the_hits_on_it_have_their_rows():
    """Hits wait long for a tag, while other rows want their lines: two lines, and rows that are asked for twice."""
    rng = random.Random(7)
    rows = [(p, 4 * k, 4) for p in range(4) for k in range(2)]
    lookups = [row for _ in range(60) for row in [rng.choice(rows)] * 3]
    world = World(config_of(RowCacheConfig(2, 1, 32)), lookups, seed=7, latency=10, read_stall=0.97)
    assert sum(world.run()) > 20
    assert world.seen["kept"] > 3


def test_a_row_that_flash_gives_with_an_error_is_not_kept():
    good, bad = (2, 0, 4), (3, 0, 4)
    world = World(config_of(), [good, bad, bad, good] * 8, seed=11, latency=5, in_flight=1, pause=40, bad=(3,))
    assert world.run() == [0, 0, 0, 1] + [1, 0, 0, 1] * 7


@pytest.mark.parametrize(("seed", "stall"), [(0, 0.0), (1, 0.0), (2, 0.3)])
def test_no_row_of_an_erased_page_is_found(seed, stall):
    """Pages are erased, later programmed with something else. A row may be read, or wait to pass, meanwhile."""
    rng = random.Random(seed)
    world = World(config_of(), skewed(rng, 500, pages=2), stall, seed=seed)
    counts = {"erases": 0}

    async def erase(ctx):
        while True:
            await ctx.tick().repeat(rng.randint(100, 400))
            pages = rng.sample(sorted(world.history), 1)
            for p in pages:
                world.history[p].append([None, world.cycle, None])
            await ctx.tick().repeat(rng.randint(1, 30))
            world.erased = 1
            await ctx.tick()
            for p in pages:
                world.history[p][-2][2] = world.cycle
            world.erased = 0
            counts["erases"] += 1
            await ctx.tick().repeat(rng.randint(1, 400))
            for p in pages:  # what was erased is no line's: no one need be told of the PROGRAM
                world.history[p][-1][2] = world.cycle
                world.history[p].append([rng.getrandbits(40), world.cycle, None])

    answers = world.run(erase)
    assert counts["erases"] > 3
    assert sum(answers) > 20


def test_what_the_host_changes_while_it_is_disabled_is_not_found():
    rng = random.Random(5)
    world = World(config_of(), skewed(rng, 400, pages=3), seed=5)

    async def disable(ctx):
        for _ in range(3):
            await ctx.tick().repeat(rng.randint(300, 400))
            world.enabled = 0
            await ctx.tick().repeat(2)
            for p, versions in world.history.items():
                versions[-1][2] = world.cycle
                versions.append([1000 * world.cycle + p, world.cycle, None])
            await ctx.tick().repeat(20)
            world.enabled = 1

    assert sum(world.run(disable)) > 50


def test_errors_of_its_dram_are_told_and_empty_it():
    """A write that fails: the row is not found. A read that fails: its row has an error, and nothing is found after it."""
    rng = random.Random(6)
    broken = [False]
    world = World(config_of(), skewed(rng, 200, pages=2), seed=6, fail=lambda addr: broken[0], in_flight=1, pause=40)

    async def breaks(ctx):
        while True:
            await ctx.tick().repeat(1500)
            broken[0] = not broken[0]

    answers = world.run(breaks)
    failed = [n for n, error in world.hits if error]
    assert failed
    assert not any(answers[n + 1] for n in failed)
    assert len(world.hits) > 10 * len(failed)


class Lines:
    """The rule of admission, by itself: sets of lines as [row, count]."""

    def __init__(self, config):
        self.ways = config.row_cache.ways
        self.number = config.row_cache.sets
        self.pages, self.page_lines = config.flash.total_pages, config.page_beats // LINE_BEATS
        self.sets = {}

    def of(self, row):
        page, (line, beat), at = row[0], divmod(row[1], LINE_BEATS), 0
        number = line + self.page_lines * (page + self.pages * beat)
        while number:
            number, digit = divmod(number, self.number)
            at ^= digit
        return self.sets.setdefault(at, [None] * self.ways)

    def look(self, row):
        for line in self.of(row):
            if line and line[0] == row:
                line[1] = min(line[1] + 1, MOST)
                return 1
        return 0

    def keep(self, row):
        lines = self.of(row)
        free = [w for w, line in enumerate(lines) if line is None] or [w for w, line in enumerate(lines) if line[1] == 0]
        if free:
            lines[free[0]] = [row, 1]
        else:
            for line in lines:
                line[1] -= 1


@pytest.mark.parametrize("cache", [CACHED, RowCacheConfig(64, 8, 32), RowCacheConfig(2, 1, 32)])
def test_who_is_kept(cache):
    """One lookup at a time: each is found exactly when the rule says so."""
    rng = random.Random(8)
    config = config_of(cache)
    lookups = skewed(rng, 200)
    world = World(config, lookups, seed=8, latency=1, in_flight=1, pause=40)  # the writer is done before the next lookup
    model, want = Lines(config), []
    for row in lookups:
        want.append(model.look(row))
        if not want[-1]:
            model.keep(row)
    assert world.run() == want
    assert 0 < sum(want) < len(want)


@pytest.mark.parametrize("never", [(5, 8, LINE_BEATS + 16), (5, small_config(graph=False).page_beats + 8, LINE_BEATS)])
def test_a_row_longer_than_a_line_or_outside_a_page_is_never_kept(never):
    """Not even where it differs from one that is in bits that a line does not need."""
    config = config_of()
    short = (5, 8, LINE_BEATS)
    world = World(config, [never, never, short, short, never, short] * 6, seed=9, in_flight=1, pause=40)
    answers = world.run()
    assert [a for a, row in zip(answers, world.lookups, strict=True) if row == never] == [0] * 18
    assert sum(answers) == 17


def test_rows_that_come_too_fast_are_dropped_not_waited_for():
    """More rows in a row than the writer takes: each lookup ends all the same, and those dropped are looked up again."""
    lookups = [(p, 4 * k, 4) for p in range(4) for k in range(4)] * 6
    world = World(config_of(RowCacheConfig(64, 8, 32)), lookups, seed=10, latency=1)
    world.run()
    assert world.seen["dropped"] > 0
    assert world.seen["kept"] + world.seen["dropped"] <= len(lookups) - world.seen["hit"]
    assert sum(world.answers[-16:]) > 8
