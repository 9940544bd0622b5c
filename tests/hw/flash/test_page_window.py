"""Reads that go before others because their die is reading their page: the queue by its rule, and the channel."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from amaranth.lib import data
from flash_bench import erase, expect_read, filled, program, random_page, read, run_channel
from nearflash.contract import DeviceConfig
from nearflash_hw.flash import Channel
from nearflash_hw.flash.queue import DieQueues
from nearflash_hw.synthesis.estimate.model import estimate_unit, kind_of
from nearflash_hw.synthesis.netlist import subtree
from nearflash_sim.bench import StreamSource, simulate
from nearflash_sim.models import MemoryModel

LAYOUT = data.StructLayout({"die": 2, "block": 2, "page": 3, "column": 2, "beats": 2, "tag": 12})


def item(die, row, tag, column=0, beats=1):
    return {"die": die, "block": row >> 3, "page": row & 7, "column": column, "beats": beats, "tag": tag}


def row(i):
    return i["block"] << 3 | i["page"]


def vector(i):
    return row(i), i["column"], i["beats"]


async def take(ctx, dut, die):
    """What a pop gives; the payload is taken a few cycles late."""
    ctx.set(dut.pop.payload, die)
    ctx.set(dut.pop.valid, 1)
    await ctx.tick().until(dut.pop.ready)
    ctx.set(dut.pop.valid, 0)
    ctx.set(dut.o.ready, 1)
    payload, = await ctx.tick().sample(dut.o.payload).until(dut.o.valid)
    ctx.set(dut.o.ready, 0)
    assert payload.die == die
    return payload.tag


async def send(ctx, dut, die, late=lambda: 0, on_tag=lambda tag: None):
    """The die's vector goes out: the tags of those that want it too, each taken ``late()`` cycles after it is there."""
    tags = []
    ctx.set(dut.sent, 1 << die)
    await ctx.tick()
    ctx.set(dut.sent, 0)
    while ctx.get(dut.repeats):
        for _ in range(late()):
            await ctx.tick()
        if ctx.get(dut.repeat.valid):
            ctx.set(dut.repeat.ready, 1)
            tags.append(ctx.get(dut.repeat.payload))
            on_tag(tags[-1])
        await ctx.tick()
        ctx.set(dut.repeat.ready, 0)
    return tags


def served(items, window):
    """In what order a queue that holds ``items`` from the start gives them, each with those that its vector answers too,
    where there is time to look at all that the window allows: by hand, from the rule."""
    waiting, out, now, left = list(items), [], None, 0
    while waiting:
        first = waiting.pop(0)
        left = left if row(first) == now else window
        now = row(first)
        seen, rest = waiting[:left], waiting[left:]
        left -= len(seen)
        repeats = [i for i in seen if vector(i) == vector(first)]
        moved = [i for i in seen if row(i) == now and vector(i) != vector(first)]
        waiting = moved[::-1] + [i for i in seen if row(i) != now] + rest
        out.append((first["tag"], [i["tag"] for i in repeats[::-1]]))
    return out


@pytest.mark.parametrize(("window", "pages", "columns"),
                         [(1, 2, 2), (4, 3, 1), (16, 3, 2), (64, 5, 3), (4096, 1, 1), (64, 1, 2)])
def test_the_order_of_a_queue_that_stands(window, pages, columns):
    rng = random.Random(window)
    items = [item(0, rng.randrange(pages), tag, rng.randrange(columns), rng.choice([1, 1, 2])) for tag in range(40)]
    dut = DieQueues(LAYOUT, 1, 40, window=window)
    src = StreamSource(dut.i, items, 0.3, seed=1)
    got = []

    async def consume(ctx):
        while not src.drained:
            await ctx.tick()
        while ctx.get(dut.pending):
            first = await take(ctx, dut, 0)
            for _ in range(200):
                await ctx.tick()
            got.append((first, await send(ctx, dut, 0)))

    wanted = served(items, window)
    simulate(dut, [src, consume], until=lambda: len(got) == len(wanted), max_cycles=12_000)
    assert got == wanted
    if pages == columns == 1:
        assert len(got) == 2  # one for each length
    if window == 64 and pages > 1:
        rows = [row(items[first]) for first, _ in got]
        assert sum(a != b for a, b in zip(rows, rows[1:], strict=False)) == pages - 1


def test_the_last_that_waits_is_a_repeat_and_the_list_goes_on():
    """It is answered with the vector, from a queue that is empty then; what comes afterwards is given as ever."""
    dut, got = DieQueues(LAYOUT, 2, 4, window=8), []

    async def run(ctx):
        async def push(i):
            ctx.set(dut.i.payload, i)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            await settle()

        async def settle():
            for _ in range(12):
                await ctx.tick()

        async def serve():
            first = await take(ctx, dut, 1)
            await settle()
            got.append([first, await send(ctx, dut, 1)])

        await push(item(1, 5, 1))
        got.append(await take(ctx, dut, 1))
        await push(item(1, 5, 2))
        assert ctx.get(dut.pending) == 0
        await push(item(1, 5, 3))
        await push(item(1, 6, 4))
        await push(item(1, 5, 5))
        got.append(await send(ctx, dut, 1))
        await push(item(1, 5, 6))  # too late: the vector has gone
        await serve()
        await push(item(1, 6, 7))
        await serve()
        assert ctx.get(dut.pending) == 0
        got.append(None)

    simulate(dut, [run], until=lambda: None in got, max_cycles=800)
    assert got == [1, [5, 3, 2], [6, []], [4, [7]], None]


@pytest.mark.parametrize(("dies", "depth", "window"), [(1, 24, 5), (4, 48, 64), (3, 30, 3)])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_none_waits_longer_than_said(dies, depth, window, seed):
    """Pushes and pops in phases of many and of few, payloads and tags that are taken late: every payload comes once; what is
    not the oldest is of the page before it, or of the vector that is sent; and no payload is passed over by more younger
    ones than the window allows."""
    rng = random.Random(100 * dies + seed)
    dut = DieQueues(LAYOUT, dies, depth, window=window)
    items = [item(rng.randrange(dies), rng.choice([1, 1, 1, 2, 3, rng.randrange(32)]), tag, rng.randrange(2))
             for tag in range(500)]
    src = StreamSource(dut.i, items, 0.2, seed=seed)
    waiting = [[] for _ in range(dies)]
    before, passed, last, took = {}, Counter(), [None] * dies, Counter()
    got, fill = [], {"taken": 0, "most": 0}
    unsent, under_way = [False] * dies, [None] * dies

    async def accept(ctx):
        while True:
            _, _, valid, ready = await ctx.tick().sample(dut.i.valid, dut.i.ready)
            if valid and ready:
                new = items[fill["taken"]]
                before[new["tag"]] = len(waiting[new["die"]])
                waiting[new["die"]].append(new)
                fill["taken"] += 1
                fill["most"] = max(fill["most"], fill["taken"] - len(got))

    def leave(die, tag):
        """The payload, and those that it passes: older ones, but for those that the vector under way answers."""
        queue = waiting[die]
        place = next(n for n, w in enumerate(queue) if w["tag"] == tag)
        older = [w for w in queue[:place] if vector(w) != under_way[die]]
        for w in older:
            passed[w["tag"]] += 1
            took["early"] += row(w) != row(queue[place])
        got.append(tag)
        return older, queue.pop(place)

    async def pops(ctx):
        cycle = 0
        while True:
            cycle += 1
            await ctx.tick()
            free = [d for d in range(dies) if not unsent[d] and ctx.get(dut.pending) >> d & 1]
            if not free or rng.random() > (0.01, 0.3)[cycle // 300 % 2]:
                continue
            die = rng.choice(free)
            older, taken = leave(die, await take(ctx, dut, die))
            assert not older or row(taken) == row(last[die])
            last[die], unsent[die] = taken, True

    async def sends(ctx):
        while True:
            await ctx.tick()
            if not any(unsent) or rng.random() > 0.02:
                continue
            die = rng.choice([d for d in range(dies) if unsent[d]])
            under_way[die], unsent[die] = vector(last[die]), False

            def answered(tag, die=die):
                assert vector(leave(die, tag)[1]) == under_way[die]
                took["repeats"] += 1

            await send(ctx, dut, die, lambda: rng.randrange(4), answered)
            under_way[die] = None

    simulate(dut, [src, accept, pops, sends], until=lambda: len(got) == len(items), max_cycles=60_000)
    assert sorted(got) == list(range(len(items)))
    assert not any(waiting)
    assert fill["most"] >= depth - 1
    assert took["early"] > 4
    assert took["repeats"] > 20
    assert all(n <= window * (before[tag] + 1) for tag, n in passed.items())


@pytest.mark.parametrize("columns", [1, 2])
def test_a_read_is_not_starved_by_others_that_keep_coming(columns):
    """Page 1 without end, a read each time one is given, and one read of page 2 among them: it is given when the window is
    used up, and not before."""
    window, dut = 8, DieQueues(LAYOUT, 1, 16, window=8)
    got = []

    async def run(ctx):
        async def push(r, tag):
            ctx.set(dut.i.payload, item(0, r, tag, tag % columns))
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

        for tag, r in enumerate((1, 2, 1, 1, 1)):
            await push(r, tag)
        tag = 5
        while tag < 40:
            first = await take(ctx, dut, 0)
            for _ in range(60):
                await ctx.tick()
            new = [first, *await send(ctx, dut, 0)]
            got.extend(new)
            for _ in new:
                await push(1, tag)
                tag += 1

    simulate(dut, [run], until=lambda: len(got) >= 35, max_cycles=4000)
    assert got.index(1) <= window + 1
    if columns == 1:
        assert got.index(1) == 4


@pytest.mark.parametrize(("values", "says"), [({"window": -1}, "window = -1"),
                                              ({"window": 2, "flag": lambda p: p.tag[0]}, "window = 2.*with a flag")])
def test_impossible_windows_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        DieQueues(LAYOUT, 1, 4, **values)


def windowed(dies: int, window: int) -> DeviceConfig:
    """tiny with shorter times, a change-read-column and a window."""
    c = DeviceConfig.preset("tiny", channels=1, dies=dies, blocks=4, pages=4, t_read_ns=1_500, t_program_ns=900,
                            t_erase_ns=1_500, t_ccs_ns=100)
    return replace(c, lookup=replace(c.lookup, tags=64, page_window=window))


@pytest.mark.parametrize("dies", [1, 4])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_channels_answers_are_exact_beside_block_io(dies, stall):
    """Lookups of a few pages, and block I/O that reads, programs and erases beside them; nothing is left in any queue."""
    config = windowed(dies, 16)
    rng = random.Random(dies)
    nand = filled(config, rng, 0, {0: 4, 1: 0, 2: 2})
    lookups = [read(t, rng.randrange(dies), rng.choice([0, 0, 2]), rng.randrange(2), rng.choice([0, 3, 50]),
                    rng.choice([1, 8])) for t in range(60)]
    blocks, pages = [], []
    for die in range(dies):
        blocks += [read(2 * die, die, 0, rng.randrange(4), 0, config.raw_page_beats), program(2 * die + 1, die, 1, 0),
                   erase(2 * die + 32, die, 3), read(2 * die + 33, die, 0, 0, 3, 5)]
        pages.append(random_page(config, rng))
    r = run_channel(config, nand=nand, lookups=lookups, blocks=blocks, pages=pages, stall=stall, seed=3, max_cycles=60_000)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    assert sorted(r.blocks) == sorted(expect_read(nand, 0, c) for c in blocks if c["op"].value == 0)
    assert sorted(r.dones) == sorted((2 * d + k, 0) for d in range(dies) for k in (1, 32))
    assert r.reads_started < 60 + 2 * dies - 20


@pytest.mark.parametrize("dies", [1, 2])
def test_a_page_is_read_once_for_all_that_wait(dies):
    """Four pages of each die in turn: with a window of all that waits each is read once; without, each time."""
    lookups = [read(t, t % dies, 0, t // dies % 4, t % 50, 4) for t in range(48)]
    reads, ends = {}, {}
    for window in (0, 64):
        config = windowed(dies, window)
        nand = filled(config, random.Random(1), 0, {0: 4})
        r = run_channel(config, nand=nand, lookups=lookups)
        assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
        reads[window], ends[window] = r.reads_started, r.lookup_cycles[-1]
    assert reads == {0: 48, 64: 4 * dies}
    assert ends[0] - ends[64] > (48 // dies - 4) * 100  # of tR's 150 cycles


@pytest.mark.parametrize("beats", [1, 2, 8])
@pytest.mark.parametrize("bus_page_ns", [1, 4000])
def test_all_that_want_a_vector_share_its_transfer(beats, bus_page_ns):
    """One phase of the bus for all, then a beat a cycle and one before each vector, at most one in three cycles."""
    config = windowed(1, 64)
    config = replace(config, flash=replace(config.flash, bus_page_ns=bus_page_ns))
    nand = filled(config, random.Random(1), 0, {0: 4})
    lookups = [read(t, 0, 0, 1, 20, beats) for t in range(12)]
    r = run_channel(config, nand=nand, lookups=lookups)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    assert r.reads_started == 1
    assert r.lookups[0][0] == 0
    gaps = [b - a for a, b in zip(r.lookup_cycles[1:], r.lookup_cycles[2:], strict=False)]
    assert set(gaps) == {max(beats + 1, 3)}


def test_a_vector_with_an_error_has_it_for_all():
    """Who shares a transfer shares its error; the page isn't kept, and the next that wants it reads it again."""
    config = windowed(1, 16)
    nand = filled(config, random.Random(2), 0, {0: 4})
    bad = config.layout.flash + nand.ppn(0, 1, 0, 0) * config.flash.page_bytes + 2 * config.beat_bytes
    lookups = [read(t, 0, 0, 1, 2 if t < 6 else 9, 1) for t in range(9)]
    memory = MemoryModel(config.beat_bytes, latency=5, fail=lambda address: address == bad)
    r = run_channel(config, nand=nand, lookups=lookups, memory=memory)
    assert {tag: error for tag, _, error in r.lookups} == {t: int(t < 6) for t in range(9)}
    assert r.reads_started == 2


def test_a_page_register_is_not_loaded_while_it_is_read_for_others():
    """Two pages in turn, so many of each vector that the next page's beats would be there long before the last is sent."""
    config = windowed(1, 64)
    config = replace(config, flash=replace(config.flash, t_read_ns=10))
    nand = filled(config, random.Random(3), 0, {0: 4})
    lookups = [read(t, 0, 0, t % 2, 4, 8) for t in range(64)]
    r = run_channel(config, nand=nand, lookups=lookups)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)


def test_a_report_counts_the_walker_where_there_is_one():
    """It is in the channel's unit; a channel without has nothing of it."""
    configs = [windowed(2, window) for window in (0, 16)]
    texts = [subtree(Channel(config), "") for config in configs]
    assert [".lookup_queue.window" in text for text in texts] == [False, True]
    off, on = (estimate_unit(kind_of("channel0", c), text, "xc7") for c, text in zip(configs, texts, strict=True))
    assert 50 < on.lut - off.lut < 500
    assert on.bram18 == off.bram18
