"""Host data of a WRITE into the ring of page slots, and of a list to whoever takes it."""

import random

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.block.write_fetch import WriteFetch
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

C = DeviceConfig.preset("tiny")
BEATS = C.page_beats


class Bench:
    def __init__(self, stall):
        self.dut = dut = reused(WriteFetch, C)
        self.bad: set[int] = set()
        self.host = MemoryModel(C.beat_bytes, stall=stall, seed=1, fail=lambda a: a in self.bad)
        self.pieces = StreamSource(dut.piece, [], stall, 2)
        self.list = StreamSink(dut.list_beat, stall, 3)
        self.memory: dict[int, int] = {}
        self.filled, self.faults, self.full = 0, [], 0

    async def watch(self, ctx):
        d = self.dut
        while True:
            _, _, en, addr, value, filled, fault = await ctx.tick().sample(
                d.write_en, d.write_addr, d.write_data, d.filled, d.fault)
            if en:
                self.memory[addr] = value
            self.filled += filled
            if fault:
                self.faults.append(fault)
                ctx.set(d.stop, 1)

    async def begin(self, ctx, kind):
        for name in ("writes", "lists", "stop"):
            ctx.set(getattr(self.dut, name), int(name == kind))
        ctx.set(self.dut.begin, 1)
        await ctx.tick()
        ctx.set(self.dut.begin, 0)

    async def until(self, ctx, condition, cycles=5000):
        for _ in range(cycles):
            if condition():
                return
            await ctx.tick()
        raise AssertionError("no progress")

    def run(self, script, max_cycles=20_000):
        over = []

        async def process(ctx):
            await script(ctx)
            over.append(True)

        simulate(self.dut, [self.watch, self.pieces, self.list, self.host.read_port(self.dut.host_read), process],
                 until=lambda: bool(over), max_cycles=max_cycles)


def cut(rng, pages, addr, host):
    """Pieces of ``pages`` logical blocks with random contents in host memory; the contents."""
    pieces, words = [], []
    for page in range(pages):
        first = rng.randrange(BEATS)
        for k, beats in enumerate([first, BEATS - first] if first else [BEATS]):
            end = int(not first or k == 1)
            content = [rng.getrandbits(64) for _ in range(beats)]
            host.write(addr, b"".join(w.to_bytes(8, "little") for w in content))
            last = int(end and page == pages - 1)
            pieces.append({"addr": addr, "beats": beats, "page_end": end, "last": last, "status": 0})
            words += content
            addr += 0x1000
    return pieces, words


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_pages_fill_the_ring_and_wait_for_slots(stall):
    b = Bench(stall)
    rng = random.Random(1)
    slots = C.host.page_slots

    async def script(ctx):
        for command in range(3):
            pages = 1 + 2 * command
            pieces, words = cut(rng, pages, 0x10_0000 * (command + 1), b.host)
            await b.begin(ctx, "writes")
            b.filled, b.memory = 0, {}
            b.pieces.items += pieces
            for page in range(pages):
                most = min(page + slots, pages)
                await b.until(ctx, lambda most=most: b.filled == most)
                for _ in range(150):
                    await ctx.tick()
                assert b.filled == most, "a slot was filled that was not free"
                assert ctx.get(b.dut.held) == 1
                at = page % slots * BEATS
                assert [b.memory[at + i] for i in range(BEATS)] == words[page * BEATS : (page + 1) * BEATS]
                ctx.set(b.dut.freed, 1)
                await ctx.tick()
                ctx.set(b.dut.freed, 0)
            await b.until(ctx, lambda: ctx.get(b.dut.over) and not ctx.get(b.dut.held))
        assert not b.faults

    b.run(script)


@pytest.mark.parametrize("what", ["list", "host"])
def test_a_failure_ends_a_command_and_the_next_one_works(what):
    b = Bench(0.2)
    rng = random.Random(2)

    async def script(ctx):
        pieces, _ = cut(rng, 2, 0x10_0000, b.host)
        if what == "host":
            b.bad.add(pieces[1]["addr"])
        else:
            pieces = [*pieces[:1], {"addr": 0, "beats": 0, "page_end": 1, "last": 1,
                                    "status": int(Status.INVALID_PRP_OFFSET)}]
        await b.begin(ctx, "writes")
        b.pieces.items += pieces
        await b.until(ctx, lambda: bool(ctx.get(b.dut.over)))
        held = b.filled
        assert b.faults[0] == (Status.INVALID_PRP_OFFSET if what == "list" else Status.DATA_TRANSFER_ERROR)
        for _ in range(held):
            assert ctx.get(b.dut.held)
            ctx.set(b.dut.freed, 1)
            await ctx.tick()
            ctx.set(b.dut.freed, 0)
        await ctx.tick()
        assert not ctx.get(b.dut.held)
        pieces, words = cut(rng, 1, 0x80_0000, b.host)
        b.filled = 0
        await b.begin(ctx, "writes")
        b.pieces.items += pieces
        await b.until(ctx, lambda: b.filled == 1)
        await ctx.tick()
        assert [b.memory[i] for i in range(BEATS)] == words

    b.run(script)


def test_a_list_goes_to_its_taker():
    b = Bench(0.3)
    words = list(range(100, 140))

    async def script(ctx):
        b.host.write(0x2000, b"".join(w.to_bytes(8, "little") for w in words))
        await b.begin(ctx, "lists")
        b.pieces.items += [{"addr": 0x2000 + 160 * i, "beats": 20, "page_end": 0, "last": i, "status": 0} for i in (0, 1)]
        await b.until(ctx, lambda: bool(ctx.get(b.dut.over)))

    b.run(script)
    assert b.list.items == words
    assert not b.memory
    assert not b.filled
