"""Pages on their way to the host: each to its own pieces, each slot given back once, each page retired once."""

import random

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.block.read_sender import ReadSender
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

C = DeviceConfig.preset("tiny")
BEATS, SIZE = C.page_beats, C.lba_bytes


class Bench:
    """Pages of several commands with one, or two pieces of host memory; slots and tags as the device would reuse them."""

    def __init__(self, stall):
        self.rng = rng = random.Random(4)
        self.dut = dut = reused(ReadSender, C)
        self.bad: set[int] = set()  # addresses
        self.host = MemoryModel(C.beat_bytes, stall=stall, seed=1, fail=lambda a: a in self.bad)
        self.pages = [StreamSource(dut.page[k], [], stall, 2 + k) for k in range(2)]
        self.place = StreamSource(dut.place, [], stall, 5)
        self.retire, self.free = StreamSink(dut.retire, stall, 6), StreamSink(dut.free)
        self.buffer = [[rng.getrandbits(64) for _ in range(BEATS)] for _ in range(C.host.read_slots)]
        self.next_addr = 0x1_0000
        self.want: dict[int, bytes] = {}

    async def memory(self, ctx):
        while True:
            _, _, en, addr = await ctx.tick().sample(self.dut.read_en, self.dut.read_addr)
            if en:
                ctx.set(self.dut.read_data, self.buffer[addr // BEATS][addr % BEATS])

    async def send(self, ctx, tag, slot, *, blank=0, bad=0, fail=False):
        cut = self.rng.randrange(BEATS)  # 0: one piece
        content = b"" if bad else bytes(SIZE) if blank else b"".join(b.to_bytes(8, "little") for b in self.buffer[slot])
        at = 0
        failing = self.rng.randrange(2 if cut else 1) if fail else None
        for index, beats in enumerate([cut, BEATS - cut] if cut else [BEATS]):
            self.place.items.append({"tag": tag, "index": index, "addr": self.next_addr, "beats": beats,
                                     "page_end": int(index == 1 or not cut), "command": tag ^ 1})
            if not bad:
                self.want[self.next_addr] = content[at : at + beats * 8]
            if index == failing:
                self.bad.add(self.next_addr)
            at += beats * 8
            self.next_addr += 0x1000
        while not self.place.drained:
            await ctx.tick()
        self.pages[blank].items.append({"tag": tag, "slot": slot, "blank": blank, "bad": bad})

    def run(self, script, max_cycles=20_000):
        over = []

        async def process(ctx):
            await script(ctx)
            over.append(True)

        d = self.dut
        simulate(d, [*self.pages, self.place, self.retire, self.free, self.memory, self.host.write_port(d.host_write),
                     process], until=lambda: bool(over), max_cycles=max_cycles)
        for addr, content in self.want.items():
            assert self.host.read(addr, len(content)) == content
            assert self.host.read(addr + len(content), 8) == bytes(8), "wrote past the piece"


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_pages_go_to_their_pieces_and_are_retired_once(stall):
    b = Bench(stall)
    kinds = []

    async def script(ctx):
        for i in range(24):
            blank, bad = int(b.rng.random() < 0.25), int(b.rng.random() < 0.2)
            fail = not bad and b.rng.random() < 0.2
            slot = i % C.host.read_slots
            kinds.append((i % C.host.block_reads, slot, blank, bad, fail))
            await b.send(ctx, i % C.host.block_reads, slot, blank=blank, bad=bad, fail=fail)
            while len(b.retire.items) < i - 1:  # two at once
                await ctx.tick()
        while len(b.retire.items) < 24:
            await ctx.tick()

    b.run(script)
    want = [(tag, Status.UNRECOVERED_READ if bad else Status.DATA_TRANSFER_ERROR if fail else 0)
            for tag, _, _, bad, fail in kinds]
    assert sorted((r["tag"], r["status"]) for r in b.retire.items) == sorted(want)
    assert all(r["command"] == r["tag"] ^ 1 and r["count"] == 1 for r in b.retire.items)
    assert sorted(b.free.items) == sorted(slot for _, slot, blank, *_ in kinds if not blank)


def test_a_beat_every_cycle():
    """Pages that wait go out in hardly more cycles than they have beats: the host's bus is what limits block reads."""
    b = Bench(0.0)
    b.rng.randrange = lambda *_: 0  # one piece each

    async def script(ctx):
        for slot in range(4):
            await b.send(ctx, slot, slot)
        start = 0
        while len(b.retire.items) < 4:
            start += 1
            await ctx.tick()
        assert start < 4 * (BEATS + 6) + 30, start

    b.host.latency = 1
    b.run(script)
