"""What moves pages between DRAM and page registers, alone: reader and writer, against the NAND model."""

import random

import pytest
from flash_bench import beats_of, check_dram, erase, filled, program, random_page, read
from nearflash.contract import DeviceConfig
from nearflash_hw.flash.array import ArrayReader, ArrayWriter
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

CONFIG = DeviceConfig.preset("tiny", channels=2, dies=2, blocks=4, pages=4)
F, LAYOUT = CONFIG.flash, CONFIG.layout
BEAT = CONFIG.beat_bytes


def die_bit(channel, die):
    return channel * F.dies + die


def state_at(nand, ppn):
    """Where the state of the block of ``ppn`` lies."""
    block, _, die, channel = nand.address(ppn)
    return LAYOUT.block_state + 8 * ((block * F.dies + die) * F.channels + channel)


def loaded(nand, memory):
    for address, content in nand.dram():
        memory.write(address, content)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_reader_loads_the_window_that_is_asked_for(stall):
    """Windows within the page, within the out-of-band area and over both, of programmed and blank pages; states for the
    writer in between; DRAM errors in some of the pages and states."""
    rng = random.Random(3)
    nand = filled(CONFIG, rng, 1, {0: 4, 1: 2})
    bad_page, bad_state = nand.ppn(0, 1, 0, 1), nand.ppn(2, 0, 0, 1)
    bad_from = LAYOUT.flash + bad_page * F.page_bytes
    memory = MemoryModel(BEAT, latency=6, stall=stall, seed=1,
                         fail=lambda a: bad_from <= a < bad_from + F.page_bytes or a == state_at(nand, bad_state))
    loaded(nand, memory)
    jobs = []
    for _ in range(40):
        column = rng.randrange(CONFIG.raw_page_beats)
        beats = rng.choice([1, CONFIG.raw_page_beats - column, rng.randint(1, CONFIG.raw_page_beats - column)])
        c = read(0, rng.randrange(2), rng.randrange(2), rng.randrange(4), column, beats)
        if rng.random() < 0.2:
            c = program(0, c["die"], rng.choice([0, 2]), c["page"])
        jobs.append({"channel": 1, "command": c})
    dut = reused(ArrayReader, CONFIG)
    source = StreamSource(dut.job, jobs, stall, seed=2)
    writes, seen = {}, []
    of_job = iter(jobs)

    async def watch(ctx):
        while True:
            stalled = sum((rng.random() < stall) << k for k in range(F.channels))
            ctx.set(dut.write_stall, stalled)
            _, _, en, at, data, done, state_done, error, state = await ctx.tick().sample(
                dut.write_en, dut.write_addr, dut.write_data, dut.done, dut.state_done, dut.error, dut.state)
            assert not en & stalled
            if done or state_done:  # before this cycle's write, which is of the next job
                c = next(of_job)["command"]
                seen.append((c, done, state_done, error, {**writes},
                             (int(state.next_page), int(state.flags), int(state.erase_count))))
                writes.clear()
            if en:
                assert en == 1 << 1
                writes[at] = data

    simulate(dut, [source, watch, memory.read_port(dut.mem)], until=lambda: len(seen) >= len(jobs), max_cycles=20_000)
    assert source.drained
    assert memory.pending == 0
    assert len(seen) == len(jobs)
    assert [s[0] for s in seen] == [j["command"] for j in jobs]
    for c, done, state_done, error, got, state in seen:
        ppn = nand.ppn(c["block"], c["page"], c["die"], 1)
        block = nand.block(ppn)
        if c["op"] == FlashOp.READ:
            base = c["die"] * CONFIG.raw_page_beats + c["column"]
            want = beats_of(CONFIG, nand.read(ppn, c["column"], c["beats"]))
            in_bad = ppn == bad_page and c["column"] < CONFIG.page_beats
            assert (done, state_done, error) == (1 << die_bit(1, c["die"]), 0, in_bad)
            assert got == {base + k: v for k, v in enumerate(want)}
        else:
            assert (done, state_done, error) == (0, 1, c["block"] == 2 and c["die"] == 0)
            assert not got
            assert state == (block.next_page, int(block.erased), block.erase_count)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_writer_keeps_the_rules(stall):
    """Erases and programs in and out of order: what is legal is in DRAM, whole, and nothing else."""
    rng = random.Random(4)
    nand = filled(CONFIG, rng, 0, {0: 1})
    memory = MemoryModel(BEAT, latency=6, stall=stall, seed=1)
    loaded(nand, memory)
    pages = [[random_page(CONFIG, rng) for _ in range(F.dies)] for _ in range(F.channels)]  # what the registers hold
    registers = [[b for page in of_channel for b in beats_of(CONFIG, page)] for of_channel in pages]
    jobs, want = [], []
    for _ in range(30):
        channel, die, block = rng.randrange(2), rng.randrange(2), rng.randrange(2)
        ppn = nand.ppn(block, 0, die, channel)
        page = min(F.pages - 1, nand.block(ppn).next_page) if rng.random() < 0.7 else rng.randrange(F.pages)
        c = erase(0, die, block) if rng.random() < 0.3 else program(0, die, block, page)
        jobs.append({"channel": channel, "command": c})
        good = nand.erase(ppn) if c["op"] == FlashOp.ERASE else nand.program(
            nand.ppn(block, page, die, channel), pages[channel][die])
        want.append((1 << die_bit(channel, die), int(not good)))
    assert {e for _, e in want} == {0, 1}
    dut = reused(ArrayWriter, CONFIG)
    source, asks = StreamSource(dut.job, jobs, stall, seed=2), StreamSink(dut.state_job, stall, seed=3)
    done = []

    async def states(ctx):
        """As the reader answers."""
        for n in range(len(jobs)):
            while len(asks.items) <= n:
                await ctx.tick()
            assert asks.items[n] == jobs[n]
            job = asks.items[n]
            ppn = nand.ppn(job["command"]["block"], 0, job["command"]["die"], job["channel"])
            await ctx.tick().repeat(rng.randint(1, 6))
            raw = memory.read(state_at(nand, ppn), 8)
            ctx.set(dut.state, {"next_page": int.from_bytes(raw[:2], "little"), "flags": int.from_bytes(raw[2:4], "little"),
                                "erase_count": int.from_bytes(raw[4:], "little")})
            ctx.set(dut.state_done, 1)
            await ctx.tick()
            ctx.set(dut.state_done, 0)

    async def page_memories(ctx):
        while True:
            granted = sum((rng.random() >= stall) << k for k in range(F.channels))
            ctx.set(dut.page_read_grant, granted)
            _, _, en, at, bits, error = await ctx.tick().sample(
                dut.page_read_en, dut.page_read_addr, dut.done, dut.error)
            if bits:
                done.append((bits, error))
            for k in range(F.channels):
                taken = en & granted & 1 << k
                ctx.set(dut.page_read_data[k], registers[k][at] if taken else rng.getrandbits(8 * BEAT))

    simulate(dut, [source, asks, states, page_memories, memory.write_port(dut.mem)],
             until=lambda: len(done) >= len(jobs), max_cycles=20_000)
    assert done == want
    assert memory.pending == 0
    for channel in range(F.channels):
        check_dram(nand, channel, memory)


def test_writer_tells_which_page_a_failed_write_cost():
    """A DRAM error in a page: it counts as programmed, has no magic, and the next one of its block may be programmed."""
    nand = filled(CONFIG, random.Random(5), 0, {0: 0})
    page = LAYOUT.flash + nand.ppn(0, 0, 0, 0) * F.page_bytes
    memory = MemoryModel(BEAT, fail=lambda a: a == page)
    loaded(nand, memory)
    dut = reused(ArrayWriter, CONFIG)
    jobs = [{"channel": 0, "command": program(0, 0, 0, p)} for p in (0, 1)]
    source, asks, done = StreamSource(dut.job, jobs), StreamSink(dut.state_job), []

    async def answer(ctx):
        ctx.set(dut.page_read_grant, 3)
        for n in range(len(jobs)):
            while len(asks.items) <= n:
                await ctx.tick()
            raw = memory.read(LAYOUT.block_state, 8)
            ctx.set(dut.state, {"next_page": raw[0], "flags": raw[2], "erase_count": raw[4]})
            ctx.set(dut.state_done, 1)
            await ctx.tick()
            ctx.set(dut.state_done, 0)

    async def watch(ctx):
        while True:
            ctx.set(dut.page_read_data[0], 0x1122334455667788)
            _, _, bits, error = await ctx.tick().sample(dut.done, dut.error)
            if bits:
                done.append((bits, error))

    simulate(dut, [source, asks, answer, watch, memory.write_port(dut.mem)], until=lambda: len(done) == 2, max_cycles=2000)
    assert done == [(1, 1), (1, 0)]
    oob = [memory.read(LAYOUT.oob + nand.ppn(0, p, 0, 0) * F.oob_bytes, 1)[0] for p in (0, 1)]
    assert oob == [0, 0x88]
    assert memory.read(LAYOUT.block_state, 1)[0] == 2
