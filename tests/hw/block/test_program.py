"""From filled page slots to mapped pages: the programmer and the mapper."""

import dataclasses
import random

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.block.mapper import Mapper
from nearflash_hw.block.programmer import Programmer
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")
C = dataclasses.replace(TINY, host=dataclasses.replace(TINY.host, page_slots=3))
SLOTS = C.host.page_slots


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("ending", ["good", "stop", "full", "stalled"])
def test_filled_pages_are_programmed_in_order(stall, ending):
    dut = reused(Programmer, C)
    rng = random.Random(1)
    log = [{"ppn": 8 + i, "sequence": 100 + i, "erase": int(i % 3 == 0)} for i in range(5)]
    pages = StreamSource(dut.allocate, log, stall, 1)
    orders, feeds = StreamSink(dut.order, stall, 2), StreamSink(dut.feed)
    out = StreamSink(dut.programmed, stall, 3)
    faults = []

    async def script(ctx):
        ctx.set(dut.lpn, 40)
        await pulse(ctx, dut.begin)
        for i in range(8):
            while i - len(out.items) >= SLOTS or (i == 5 and len(out.items) < 5):
                await ctx.tick()
            if i == 5 and ending in ("full", "stalled"):
                ctx.set(getattr(dut, ending), 1)
            if i == 5 and ending in ("good", "stop"):
                ctx.set(dut.stop, int(ending == "stop"))
                pages.items += [{"ppn": 20 + k, "sequence": 200 + k, "erase": 0} for k in range(3)] * (ending == "good")
            await pulse(ctx, dut.filled)
            for _ in range(rng.randrange(8)):
                await ctx.tick()

    async def watch(ctx):
        while True:
            _, _, fault = await ctx.tick().sample(dut.fault)
            if fault:
                faults.append(fault)
                ctx.set(dut.stop, 1)

    simulate(dut, [pages, orders, feeds, out, script, watch], until=lambda: len(out.items) == 8, max_cycles=2000)
    good = ending == "good"
    taken = [*log, *({"ppn": 20 + k, "sequence": 200 + k, "erase": 0} for k in range(3))][: 8 if good else 5]
    assert [p["dropped"] for p in out.items] == [0] * len(taken) + [1] * (8 - len(taken))
    assert [p["lpn"] for p in out.items] == list(range(40, 48))
    assert [p["ppn"] for p in out.items[: len(taken)]] == [p["ppn"] for p in taken]
    assert feeds.items == [{"channel": p["ppn"] % C.flash.channels, "slot": i % SLOTS, "lpn": 40 + i,
                            "sequence": p["sequence"]} for i, p in enumerate(taken)]
    want = []
    for i, p in enumerate(taken):
        if p["erase"]:
            want.append({"op": FlashOp.ERASE, "ppn": p["ppn"], "tag": i % SLOTS << 1})
        want.append({"op": FlashOp.PROGRAM, "ppn": p["ppn"], "tag": i % SLOTS << 1 | 1})
    assert orders.items == want
    assert set(faults) == {"full": {Status.CAPACITY_EXCEEDED}, "stalled": {Status.WRITE_FAULT}}.get(ending, set())


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_pages_are_mapped_in_order_once_programmed(stall):
    """Answers of the flash come in any order; what failed is not mapped, and says so."""
    dut = reused(Mapper, C)
    rng = random.Random(2)
    n = 30
    dropped, failed, unmapped = ({i for i in range(n) if rng.random() < 0.2} for _ in range(3))
    failed -= dropped
    unmapped -= dropped | failed
    source = StreamSource(dut.programmed, [], stall, 1)
    done = [StreamSource(dut.flash_done[k], [], stall, 2 + k) for k in range(C.flash.channels)]
    answers = StreamSource(dut.update_done, [], stall, 8)
    answered: set[int] = set()
    erased: set[int] = set()
    freed, faults = [], []

    def map_page(item):
        i = item["lpn"]
        assert i in answered, "mapped before it was programmed"
        assert item == {"lpn": i, "ppn": i + 1, "mapped": 1}
        answers.items.append({"error": int(i in unmapped)})

    updates = StreamSink(dut.update, stall, 9, map_page)

    async def flash(ctx):
        await pulse(ctx, dut.begin)
        waiting = []
        sent = 0
        while True:
            await ctx.tick()
            if sent < n and sent - len(freed) < SLOTS:
                source.items.append({"lpn": sent, "ppn": sent + 1, "dropped": int(sent in dropped)})
                if sent not in dropped:
                    waiting.append((sent, rng.random() < 0.4))
                sent += 1
            if waiting and rng.random() < 0.05:
                i, erase = waiting.pop(rng.randrange(len(waiting)))
                port = done[i % C.flash.channels]
                if erase:  # its PROGRAM is answered later; either may be what failed
                    port.items.append({"tag": i % SLOTS << 1, "error": int(i in failed and i % 2)})
                    waiting.append((i, False))
                    erased.add(i)
                else:
                    port.items.append({"tag": i % SLOTS << 1 | 1, "error": int(i in failed and not (i in erased and i % 2))})
                    answered.add(i)

    async def watch(ctx):
        while True:
            _, _, free, fault = await ctx.tick().sample(dut.freed, dut.fault)
            if fault:
                assert free
                assert fault == Status.WRITE_FAULT
                faults.append(len(freed))
            if free:
                freed.append(True)

    simulate(dut, [source, *done, answers, updates, flash, watch], until=lambda: len(freed) == n, max_cycles=20_000)
    assert [u["lpn"] for u in updates.items] == [i for i in range(n) if i not in dropped | failed]
    assert faults == sorted(failed | unmapped)
