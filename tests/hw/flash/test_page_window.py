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
from nearflash_hw.synthesis.estimate.model import estimate_unit
from nearflash_hw.synthesis.netlist import subtree
from nearflash_sim.bench import StreamSource, simulate

LAYOUT = data.StructLayout({"die": 2, "block": 2, "page": 3, "v": 12})


def item(die, row, v):
    return {"die": die, "block": row >> 3, "page": row & 7, "v": v}


def row(i):
    return i["block"] << 3 | i["page"]


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
    return payload.v


def served(rows, window):
    """In what order a queue that holds reads of ``rows`` from the start gives them, where there is time to look at all that
    the window allows: by hand, from the rule."""
    waiting, out, now = list(range(len(rows))), [], None
    while waiting:
        first = waiting.pop(0)
        out.append(first)
        if rows[first] != now:
            now = rows[first]
            moved = [n for n in waiting[:window] if rows[n] == now]
            waiting = moved[::-1] + [n for n in waiting if n not in moved]
    return out


@pytest.mark.parametrize(("window", "pages"), [(1, 2), (4, 3), (16, 3), (64, 5)])
def test_the_order_of_a_queue_that_stands(window, pages):
    rng = random.Random(window)
    rows = [rng.randrange(pages) for _ in range(40)]
    dut = DieQueues(LAYOUT, 1, 40, window=window)
    src = StreamSource(dut.i, [item(0, r, v) for v, r in enumerate(rows)], 0.3, seed=1)
    got = []

    async def consume(ctx):
        while not src.drained:
            await ctx.tick()
        for _ in rows:
            got.append(await take(ctx, dut, 0))
            for _ in range(200):
                await ctx.tick()

    simulate(dut, [src, consume], until=lambda: len(got) == len(rows), max_cycles=12_000)
    assert got == served(rows, window)
    if window == 64:
        assert sum(rows[a] != rows[b] for a, b in zip(got, got[1:], strict=False)) == pages - 1


@pytest.mark.parametrize(("dies", "depth", "window"), [(1, 24, 5), (4, 48, 64), (3, 30, 3)])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_none_waits_longer_than_said(dies, depth, window, seed):
    """Pushes and pops in phases of many and of few, payloads that are taken late: every payload comes once; what is not the
    oldest is of the page before it; and no payload is passed over by more younger ones than the window allows."""
    rng = random.Random(100 * dies + seed)
    dut = DieQueues(LAYOUT, dies, depth, window=window)
    items = [item(rng.randrange(dies), rng.choice([1, 1, 1, 2, 3, rng.randrange(32)]), v) for v in range(500)]
    src = StreamSource(dut.i, items, 0.2, seed=seed)
    waiting = [[] for _ in range(dies)]
    before, passed, last, took = {}, Counter(), [None] * dies, Counter()
    got, fill = [], {"taken": 0, "most": 0}

    async def accept(ctx):
        while True:
            _, _, valid, ready = await ctx.tick().sample(dut.i.valid, dut.i.ready)
            if valid and ready:
                new = items[fill["taken"]]
                before[new["v"]] = len(waiting[new["die"]])
                waiting[new["die"]].append(new)
                fill["taken"] += 1
                fill["most"] = max(fill["most"], fill["taken"] - len(got))

    async def consume(ctx):
        cycle = 0
        while True:
            cycle += 1
            await ctx.tick()
            pending = ctx.get(dut.pending)
            if not pending or rng.random() > (0.01, 0.3)[cycle // 300 % 2]:
                continue
            die = rng.choice([d for d in range(dies) if pending >> d & 1])
            v = await take(ctx, dut, die)
            queue = waiting[die]
            place = next(n for n, w in enumerate(queue) if w["v"] == v)
            assert place == 0 or row(queue[place]) == last[die]
            for older in queue[:place]:
                passed[older["v"]] += 1
                took["early"] += row(older) != last[die]
            last[die] = row(queue[place])
            del queue[place]
            got.append(v)

    simulate(dut, [src, accept, consume], until=lambda: len(got) == len(items), max_cycles=60_000)
    assert sorted(got) == list(range(len(items)))
    assert not any(waiting)
    assert fill["most"] >= depth
    assert took["early"] > 4
    assert all(n <= window * (before[v] + 1) for v, n in passed.items())


def test_a_read_is_not_starved_by_others_that_keep_coming():
    """Page 1 without end, a read each time one is given, and one read of page 2 among them: it is given when the window is
    used up, and not before."""
    window, dut = 8, DieQueues(LAYOUT, 1, 16, window=8)
    got = []

    async def run(ctx):
        async def push(r, v):
            ctx.set(dut.i.payload, item(0, r, v))
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

        for v, r in enumerate((1, 2, 1, 1, 1)):
            await push(r, v)
        for v in range(5, 40):
            for _ in range(40):
                await ctx.tick()
            got.append(await take(ctx, dut, 0))
            await push(1, v)

    simulate(dut, [run], until=lambda: len(got) == 35, max_cycles=4000)
    assert got.index(1) == 8  # the first, and of the window's eight reads those that aren't it itself
    assert window == 8


@pytest.mark.parametrize(("values", "says"), [({"window": -1}, "window = -1"),
                                              ({"window": 2, "flag": lambda p: p.v[0]}, "window = 2.*with a flag")])
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
    lookups = [read(t, rng.randrange(dies), rng.choice([0, 0, 2]), rng.randrange(2), rng.randrange(50), rng.randint(1, 8))
               for t in range(60)]
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


def test_a_report_counts_the_walker_where_there_is_one():
    """It is in the channel's unit; a channel without has nothing of it."""
    texts = [subtree(Channel(windowed(2, window)), "") for window in (0, 16)]
    assert [".lookup_queue.window" in text for text in texts] == [False, True]
    off, on = (estimate_unit("channel", text, "xc7") for text in texts)
    assert 50 < on.lut - off.lut < 500
    assert on.bram18 == off.bram18
