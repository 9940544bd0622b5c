"""Pages from the channels: each in a slot of its own, whole, and never a beat refused."""

import dataclasses
import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.block.landing import Landing
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")


def config(channels, slots):
    return dataclasses.replace(TINY, flash=dataclasses.replace(TINY.flash, channels=channels),
                               host=dataclasses.replace(TINY.host, read_slots=slots))


class Channel:
    """Sends ``pages`` (tag, contents), each from when there is room, its beats at most ``gap`` cycles apart."""

    def __init__(self, dut, k, pages, gap, rng):
        self.dut, self.k, self.pages, self.gap, self.rng = dut, k, pages, gap, rng

    async def process(self, ctx):
        dut, k, port = self.dut, self.k, self.dut.flash_data[self.k]

        async def tick():
            _, _, ready, room = await ctx.tick().sample(port.ready, dut.room[k])
            return ready, room

        for tag, beats, error in self.pages:
            for _ in range(self.rng.randrange(20)):
                await tick()
            ctx.set(dut.waits[k], 1)
            while not (await tick())[1]:
                pass
            ctx.set(dut.waits[k], 0)
            for _ in range(self.rng.randrange(10)):  # the bus may be busy
                await tick()
            for i, value in enumerate(beats):
                ctx.set(port.payload, {"data": value, "tag": tag, "last": int(i == len(beats) - 1), "error": error})
                ctx.set(port.valid, 1)
                waited = 0
                while not (await tick())[0]:
                    waited += 1
                    assert waited < len(dut.flash_data), "a beat waited for more than the other channels"
                ctx.set(port.valid, 0)
                for _ in range(self.rng.randrange(self.gap + 1)):
                    await tick()


@pytest.mark.parametrize(("channels", "slots"), [(1, 1), (2, 1), (4, 3), (4, 8)])
@pytest.mark.parametrize("gap", [0, 6])
def test_pages_land_whole_in_slots_of_their_own(channels, slots, gap):
    c = config(channels, slots)
    rng = random.Random(channels * 10 + slots)
    dut = reused(Landing, c)
    pages = [[(k + channels * i & 7, [rng.getrandbits(64) for _ in range(c.page_beats)], int(rng.random() < 0.2))
              for i in range(5)] for k in range(channels)]
    left = {k: list(p) for k, p in enumerate(pages)}
    memory: dict[int, int] = {}
    out = StreamSink(dut.page, 0.2, 3)
    free = StreamSource(dut.free)
    total = channels * 5
    checked = []

    async def write(ctx):
        while True:
            _, _, en, addr, value = await ctx.tick().sample(dut.write_en, dut.write_addr, dut.write_data)
            if en:
                memory[addr] = value

    async def check(ctx):
        while True:
            await ctx.tick()
            while len(out.items) > len(checked):
                page = out.items[len(checked)]
                assert page["blank"] == 0
                got = [memory[page["slot"] * c.page_beats + i] for i in range(c.page_beats)]
                k, = (k for k in left if left[k] and left[k][0][1] == got)
                tag, _, error = left[k].pop(0)
                assert (page["tag"], page["bad"]) == (tag, error)
                checked.append(page)
                for _ in range(rng.randrange(200)):
                    await ctx.tick()
                free.items.append(page["slot"])

    simulate(dut, [*(Channel(dut, k, p, gap, rng) for k, p in enumerate(pages)), out, free, write, check],
             until=lambda: len(checked) == total, max_cycles=60_000)


def test_channels_share_few_slots_in_turn():
    """One slot, and every channel always waits: none is passed over twice."""
    c = config(4, 1)
    dut = reused(Landing, c)
    out, free = StreamSink(dut.page), StreamSource(dut.free)
    order = []

    async def channel(ctx, k):
        port = dut.flash_data[k]
        ctx.set(dut.waits[k], 1)
        while True:
            _, _, room = await ctx.tick().sample(dut.room[k])
            if room:
                order.append(k)
                for i in range(c.page_beats):
                    ctx.set(port.payload, {"data": 0, "tag": k, "last": int(i == c.page_beats - 1), "error": 0})
                    ctx.set(port.valid, 1)
                    await ctx.tick()
                ctx.set(port.valid, 0)

    async def give_back(ctx):
        n = 0
        while True:
            await ctx.tick()
            if len(out.items) > n:
                free.items.append(out.items[n]["slot"])
                n += 1

    channels = [lambda ctx, k=k: channel(ctx, k) for k in range(4)]
    simulate(dut, [*channels, out, free, give_back], until=lambda: len(order) == 16, max_cycles=5_000)
    assert order == [(order[0] + i) % 4 for i in range(16)]
