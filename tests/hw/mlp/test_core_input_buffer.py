"""A core's input buffer: groups of vectors from several producers, read word by word as far as they are here."""

import random

import pytest
from nearflash_hw.mlp.buffer import Edge, InputBuffer, plan_edges
from nearflash_sim.bench import StreamSource, reused, simulate

BITS = 8


def test_edges_follow_each_other_in_lanes_that_their_place_allows():
    assert plan_edges([("a", 8, 4), ("b", 4, 8), ("c", 3, 8), ("d", 5, 2)], 8) == (
        Edge("a", 0, 8, 4), Edge("b", 8, 4, 8), Edge("c", 12, 3, 4), Edge("d", 15, 5, 1))
    with pytest.raises(ValueError, match=r"edge .*lanes must divide its offset and the word of 4"):
        InputBuffer((Edge("a", 0, 2, 2), Edge("b", 2, 4, 4)), 4, BITS, 1, 1)


def beats(rng, edge, vectors):
    """An edge's part of a group: sample by sample, or element by element with the last sample's after the others'."""
    places = [(pos, n) for pos in range(0, edge.width, edge.lanes) for n in range(len(vectors))]
    if rng.random() < 0.5:
        places.sort(key=lambda place: (place[1], place[0]))
    for pos, n in places:
        part = vectors[n][edge.offset + pos:edge.offset + edge.width][:edge.lanes]
        part += [rng.randint(-128, 127) for _ in range(edge.lanes - len(part))]
        yield {"data": part, "pos": pos, "n": n, "nb": len(vectors) - 1}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("inputs", "k", "n_batch", "buffered", "reads"), [
    ([("a", 7, 1)], 4, 1, 1, 1), ([("a", 8, 4), ("b", 6, 2), ("c", 3, 1)], 4, 4, 2, 2),
    ([("a", 3, 2), ("b", 4, 1)], 8, 2, 2, 1)])
def test_what_columns_says_is_there(inputs, k, n_batch, buffered, reads, stall):
    """Of every group, up to the last column and before; a word holds until the next is read, also over the group's end."""
    edges, rng = plan_edges(inputs, k), random.Random(f"{inputs} {stall}")
    dut = reused(InputBuffer, edges, k, BITS, n_batch, buffered, reads)
    width = sum(w for _, w, _ in inputs)
    groups = [[[rng.randint(-128, 127) for _ in range(width)] for _ in range(rng.randint(1, n_batch))] for _ in range(12)]
    sources = [StreamSource(getattr(dut, f"i{j}"), [b for g in groups for b in beats(rng, e, g)], stall, j)
               for j, e in enumerate(edges)]
    started, done, early = [], [], []

    async def watch(ctx):
        async for *_, begins, active in ctx.tick().sample(dut.started, dut.active):
            if begins:
                started.append(begins)
            assert len(started) - len(done) <= buffered
            assert active or begins or len(started) == len(done)

    async def read_all(ctx, group, columns):
        """Every word with one of the first ``columns`` elements of every sample, by the ports in turn."""
        places = [(n, block) for n in range(len(group)) for block in range(-(-columns // k))]
        for at, (n, block) in enumerate(rng.sample(places, len(places))):
            port, data = getattr(dut, f"read{at % reads}"), getattr(dut, f"data{at % reads}")
            ctx.set(port, {"en": 1, "n": n, "block": block})
            await ctx.tick()
            ctx.set(port, {"en": 0, "n": 0, "block": 0})
            want = group[n][block * k:columns][:k]
            assert list(ctx.get(data))[:len(want)] == want
            if rng.random() < 0.3:
                await ctx.tick().repeat(2)
                assert list(ctx.get(data))[:len(want)] == want, "not held"

    async def use(ctx):
        for group in groups:
            while not (columns := ctx.get(dut.columns)):
                await ctx.tick()
            assert ctx.get(dut.nb) == len(group) - 1
            if columns < width:
                early.append(columns)
                await read_all(ctx, group, columns)
            while (now := ctx.get(dut.columns)) < width:
                assert now >= columns
                await ctx.tick()
            if rng.random() < 0.3:
                await ctx.tick().repeat(40)  # the producers run into the end of the buffer
            await read_all(ctx, group, width)
            ctx.set(dut.read0, {"en": 1, "n": 0, "block": 0})
            ctx.set(dut.release, 1)
            await ctx.tick()
            done.append(group)
            ctx.set(dut.read0, {"en": 0, "n": 0, "block": 0})
            ctx.set(dut.release, 0)
            assert list(ctx.get(dut.data0))[:min(k, width)] == group[0][:k]
            await ctx.tick()

    simulate(dut, [watch, use, *sources], until=lambda: len(done) == len(groups), max_cycles=8000)
    assert len(started) == len(groups)
    assert early
    assert all(s.drained for s in sources)
