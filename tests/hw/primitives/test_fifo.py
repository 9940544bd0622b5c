"""The stream FIFO: order, capacity, level and latency, of any depth."""

import pytest
from nearflash_hw.primitives.fifo import StreamFifo
from nearflash_sim.bench import StreamSink, StreamSource, simulate

FIFOS = [(1, False), (2, False), (3, False), (4, False), (9, False), (16, False), (2, True), (5, True), (8, True),
         (64, None)]


@pytest.mark.parametrize(("depth", "buffered"), FIFOS)
def test_it_takes_as_many_as_it_is_deep_and_gives_them_back_in_order(depth, buffered):
    """Filled, emptied and filled again, so that its pointers wrap; then both sides stall at random."""
    dut = StreamFifo(8, depth, buffered)
    items = [(37 * k) & 255 for k in range(3 * depth + 40)]
    source, sink = StreamSource(dut.i, items, seed=1), StreamSink(dut.o, 1.0, seed=2)
    full = []

    async def stop_and_go(ctx):
        for _ in range(2):
            sink.stall = 1.0
            await ctx.tick().repeat(depth + 6)
            full.append((source.sent - len(sink.items), ctx.get(dut.level), ctx.get(dut.i.ready)))
            sink.stall = 0.0
            await ctx.tick().repeat(depth // 2 + 3)
        source.stall = sink.stall = 0.4

    simulate(dut, [source, sink, stop_and_go], until=lambda: len(sink.items) == len(items), max_cycles=60 * depth + 600)
    holds = depth + dut.buffered
    assert full == [(holds, holds, 0)] * 2
    assert sink.items == items


@pytest.mark.parametrize(("depth", "buffered", "latency"), [(4, False, 1), (4, True, 2), (64, None, 2)])
def test_latency_and_rate(depth, buffered, latency):
    dut = StreamFifo(8, depth, buffered)
    source, sink = StreamSource(dut.i, range(30)), StreamSink(dut.o)
    simulate(dut, [source, sink], until=lambda: len(sink.items) == 30, max_cycles=100)
    assert sink.cycles == [*range(1 + latency, 31 + latency)]


@pytest.mark.parametrize(("depth", "buffered", "least"), [(0, None, 1), (1, True, 2)])
def test_depths_that_cannot_be(depth, buffered, least):
    with pytest.raises(ValueError, match=f"depth = {depth}: must be at least {least}"):
        StreamFifo(8, depth, buffered)
