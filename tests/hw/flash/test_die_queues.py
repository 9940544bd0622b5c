import random
from collections import deque

import pytest
from amaranth.lib import data
from nearflash_hw.flash.queue import DieQueue, DieQueues
from nearflash_sim.bench import StreamSink, StreamSource, simulate

LAYOUT = data.StructLayout({"die": 2, "v": 12})


@pytest.mark.parametrize(("dies", "depth"), [(1, 1), (4, 6), (3, 70)])
def test_each_die_is_a_fifo_and_the_flag_follows_its_head(dies, depth):
    rng = random.Random(dies)
    dut = DieQueues(LAYOUT, dies, depth, flag=lambda p: p.v[0])
    items = [{"die": rng.randrange(dies), "v": rng.randrange(4096)} for _ in range(60 + 3 * depth)]
    src = StreamSource(dut.i, items, 0.2, seed=1)
    model = [deque() for _ in range(dies)]
    got, seen = [], {"full": 0, "taken": 0, "popped": 0}

    async def accept(ctx):
        while True:
            _, _, valid, ready, pop, pop_ready = await ctx.tick().sample(
                dut.i.valid, dut.i.ready, dut.pop.valid, dut.pop.ready)
            if valid and ready:
                item = items[seen["taken"]]
                model[item["die"]].append(item["v"])
                seen["taken"] += 1
            seen["popped"] += pop and pop_ready
            seen["full"] = max(seen["full"], seen["taken"] - seen["popped"])

    async def consume(ctx):
        # Phases of few and of many pops, so that the queue gets both full and empty.
        cycle = 0
        while True:
            cycle += 1
            await ctx.tick()
            pending, flagged = ctx.get(dut.pending), ctx.get(dut.flagged)
            rate = 0.02 if cycle // 400 % 2 == 0 else 0.9
            if not pending or rng.random() > rate or not ctx.get(dut.pop.ready):
                continue
            die = rng.choice([d for d in range(dies) if pending >> d & 1])
            assert flagged >> die & 1 == model[die][0] & 1
            ctx.set(dut.pop.payload, die)
            ctx.set(dut.pop.valid, 1)
            await ctx.tick().until(dut.pop.ready)
            ctx.set(dut.pop.valid, 0)
            for _ in range(rng.randrange(4)):
                await ctx.tick()
            ctx.set(dut.o.ready, 1)
            payload, = await ctx.tick().sample(dut.o.payload).until(dut.o.valid)
            ctx.set(dut.o.ready, 0)
            assert payload.die == die
            assert payload.v == model[die].popleft()
            got.append(die)

    state = {}

    async def rest(ctx):
        while True:
            _, _, pending, valid = await ctx.tick().sample(dut.pending, dut.o.valid)
            state["rest"] = not pending and not valid

    simulate(dut, [src, accept, consume, rest], until=lambda: len(got) == len(items), max_cycles=12_000)
    assert seen["full"] == depth  # every entry was used at once
    assert state["rest"]
    assert not any(model)


@pytest.mark.parametrize("depth", [2, 70])
def test_the_queue_of_one_die_is_a_fifo_that_shows_its_head(depth):
    dut = DieQueue(LAYOUT, depth, flag=lambda p: p.v[0])
    items = [{"die": 0, "v": v} for v in range(3 * depth)]
    src, sink = StreamSource(dut.i, items, 0.1, seed=1), StreamSink(dut.o, 0.5, seed=2)
    seen = []

    async def watch(ctx):
        while True:
            _, _, pending, flagged, valid, head = await ctx.tick().sample(
                dut.pending, dut.flagged, dut.o.valid, dut.o.payload)
            seen.append(pending)
            assert pending == valid
            assert not pending or flagged == head.v & 1

    simulate(dut, [src, sink, watch], until=lambda: len(sink.items) == len(items), max_cycles=2000)
    assert sink.items == items
    assert set(seen) == {0, 1}


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="depth = 0"):
        DieQueues(LAYOUT, 1, 0)
    with pytest.raises(ValueError, match="depth = 0"):
        DieQueue(LAYOUT, 0)
