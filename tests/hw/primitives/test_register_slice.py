"""Register slices: the same transfers in the same order, at the rate their kind promises, with no path they should cut."""

import itertools

import pytest
from nearflash_hw.primitives.register_slice import READY, RegisterSlice
from nearflash_sim.bench import StreamSink, StreamSource, simulate

WORDS = 200


def run(kind: str, source_stall: float, sink_stall: float, max_cycles: int) -> list[int]:
    dut = RegisterSlice(8, kind)
    source, sink = StreamSource(dut.i, stall=source_stall, seed=1), StreamSink(dut.o, stall=sink_stall, seed=2)
    source.items += [(k * 37) % 256 for k in range(WORDS)]
    simulate(dut, [source, sink], until=lambda: len(sink.items) == WORDS and source.drained, max_cycles=max_cycles,
             settle=20)
    return sink.items


@pytest.mark.parametrize(("kind", "stalls"), [
    *itertools.product(READY, [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5), (0.1, 0.9)])])
def test_nothing_is_lost_added_or_out_of_order(kind, stalls):
    assert run(kind, *stalls, 40 * WORDS) == [(k * 37) % 256 for k in range(WORDS)]


@pytest.mark.parametrize(("kind", "cycles"), [("through", 1), ("half", 2), ("full", 1)])
def test_rate(kind, cycles):
    assert len(run(kind, 0.0, 0.0, cycles * WORDS + 5)) == WORDS


@pytest.mark.parametrize(("kind", "follows"), [("through", True), ("half", False), ("full", False)])
def test_ready_follows_only_where_it_may(kind, follows):
    dut = RegisterSlice(8, kind)
    seen = []

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(4)  # until it has no room
        for ready in (0, 1, 0):
            ctx.set(dut.o.ready, ready)
            await ctx.delay(1e-9)
            seen.append(ctx.get(dut.i.ready))

    simulate(dut, [bench], until=lambda: len(seen) == 3, max_cycles=20)
    assert seen == ([0, 1, 0] if follows else [0, 0, 0])


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="twice"):
        RegisterSlice(8, "twice")
