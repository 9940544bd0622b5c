"""What block I/O shares: the channels' command ports, the map's update port, the read port of a buffer."""

import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.block.beat_reader import BeatReader
from nearflash_hw.block.flash_orders import FlashOrders
from nearflash_hw.block.update_port import UpdatePort
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

C = DeviceConfig.preset("tiny", channels=4)
F = C.flash


def by_field(command):
    return command["op"].value, *(command[name] for name in ("die", "block", "page", "tag"))


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_orders_reach_their_channel(stall):
    rng = random.Random(1)
    dut = reused(FlashOrders, C)
    orders = [[{"op": op, "ppn": rng.randrange(F.total_pages), "tag": rng.randrange(8)}
               for op in rng.choices(list(FlashOp), k=40)] for _ in range(2)]
    sources = [StreamSource(dut.order[k], orders[k], stall, k) for k in range(2)]
    sinks = [StreamSink(port, stall, 5 + k) for k, port in enumerate(dut.flash_cmd)]
    simulate(dut, [*sources, *sinks], until=lambda: sum(len(s.items) for s in sinks) == 80, max_cycles=2000)
    want = {k: [] for k in range(F.channels)}
    for half in orders:
        for o in half:
            row, at = divmod(o["ppn"], F.channels * F.dies)
            block, page = divmod(row, F.pages)
            want[at % F.channels].append({
                "op": o["op"], "die": at // F.channels, "block": block, "page": page, "column": 0, "tag": o["tag"],
                "beats": C.page_beats if o["op"] == FlashOp.READ else C.raw_page_beats})
    for k, sink in enumerate(sinks):
        assert sorted(sink.items, key=by_field) == sorted(want[k], key=by_field)


def test_halves_take_turns():
    dut = reused(FlashOrders, C)
    sources = [StreamSource(dut.order[k], [{"op": FlashOp.READ, "ppn": 0, "tag": k}] * 20) for k in range(2)]
    sink = StreamSink(dut.flash_cmd[0])
    simulate(dut, [*sources, sink], until=lambda: len(sink.items) == 40, max_cycles=200)
    tags = [i["tag"] for i in sink.items]
    assert all({a, b} == {0, 1} for a, b in zip(tags, tags[1:], strict=False))


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_each_change_is_answered_to_who_made_it(stall):
    dut = reused(UpdatePort, C)
    made = [[{"lpn": 100 * k + i, "ppn": i, "mapped": k} for i in range(20)] for k in range(2)]
    sources = [StreamSource(dut.i[k], made[k], stall, k) for k in range(2)]
    answers = [StreamSink(dut.done[k], stall, 3 + k) for k in range(2)]
    memory = StreamSource(dut.update_done, [], stall, 6)

    def change(item):
        assert len(memory.items) == sum(len(a.items) for a in answers), "a change before the last one's answer"
        memory.items.append({"error": item["lpn"] % 3 == 0})

    updates = StreamSink(dut.update, stall, 7, change)
    simulate(dut, [*sources, *answers, memory, updates], max_cycles=3000,
             until=lambda: sum(len(a.items) for a in answers) == 40)
    for k in range(2):
        assert [u for u in updates.items if u["lpn"] // 100 == k] == made[k]
        assert [a["error"] for a in answers[k].items] == [int(u["lpn"] % 3 == 0) for u in made[k]]


@pytest.mark.parametrize("latency", [1, 2, 3])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_beats_come_in_order_at_one_a_cycle(latency, stall):
    dut = reused(BeatReader, 16, 8, latency)
    n = 120
    source, sink = StreamSource(dut.addr, range(n), 0.0, 1), StreamSink(dut.o, stall, 2)

    async def port(ctx):
        pipe = [None] * latency
        ctx.set(dut.read.ready, 1)
        while True:
            _, _, valid, addr = await ctx.tick().sample(dut.read.valid, dut.read.payload)
            pipe = [addr if valid else None, *pipe[:-1]]
            ctx.set(dut.arrives, int(pipe[-1] is not None))
            ctx.set(dut.data, 0xDEAD if pipe[-1] is None else pipe[-1] * 3)

    simulate(dut, [source, sink, port], until=lambda: len(sink.items) == n, max_cycles=2000)
    assert sink.items == [3 * i for i in range(n)]
    if not stall:
        assert sink.cycles[-1] - sink.cycles[0] == n - 1


def test_a_reader_without_latency_is_refused():
    with pytest.raises(ValueError, match="latency = 0: must be at least 1"):
        BeatReader(16, 8, 0)
