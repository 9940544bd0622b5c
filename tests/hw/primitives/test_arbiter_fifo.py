import random

import pytest
from amaranth.lib import data
from nearflash_hw.primitives.arbiter import StreamArbiter
from nearflash_hw.primitives.fifo import StreamFifo
from nearflash_sim.bench import StreamSink, StreamSource, simulate

LAYOUT = data.StructLayout({"v": 8, "last": 1})


@pytest.mark.parametrize("packet", [False, True])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_arbiter_loses_nothing_and_keeps_packets_whole(packet, stall):
    rng = random.Random(7)
    dut = StreamArbiter(LAYOUT, 3, packet=packet)
    sent = []
    for k in range(3):
        items = []
        for _ in range(20):
            n = rng.randint(1, 4)
            items += [{"v": k << 6 | rng.randint(0, 63), "last": int(i == n - 1)} for i in range(n)]
        sent.append(items)
    srcs = [StreamSource(dut.i[k], sent[k], stall, seed=k) for k in range(3)]
    sink = StreamSink(dut.o, stall, seed=9)
    total = sum(map(len, sent))
    simulate(dut, [*srcs, sink], until=lambda: len(sink.items) == total, max_cycles=2000)
    for k in range(3):
        assert [i for i in sink.items if i["v"] >> 6 == k] == sent[k]
    if packet:
        for a, b in zip(sink.items, sink.items[1:], strict=False):
            assert a["last"] or a["v"] >> 6 == b["v"] >> 6


def test_arbiter_wait_is_bounded():
    dut = StreamArbiter(LAYOUT, 4)
    srcs = [StreamSource(dut.i[k], [{"v": k, "last": 1}] * 30) for k in range(4)]
    sink = StreamSink(dut.o)
    simulate(dut, [*srcs, sink], until=lambda: len(sink.items) == 120, max_cycles=500)
    order = [i["v"] for i in sink.items]
    for i in range(4, 100):
        assert sorted(order[i : i + 4]) == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 3, 64])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_fifo_keeps_order(depth, stall):
    dut = StreamFifo(LAYOUT, depth)
    items = [{"v": i % 256, "last": i & 1} for i in range(150)]
    src, sink = StreamSource(dut.i, items, stall, seed=1), StreamSink(dut.o, stall, seed=2)
    simulate(dut, [src, sink], until=lambda: len(sink.items) == len(items), max_cycles=3000)
    assert sink.items == items
