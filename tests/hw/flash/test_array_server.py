"""One array server for several channels, alone and with them: every job's bytes go to and come from its own channel."""

import random

import pytest
from flash_bench import Flash, beats_of, check_dram, erase, expect_read, filled, packets, program, random_page, read
from nearflash.contract import DeviceConfig
from nearflash_hw.flash import ArrayServer
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel


@pytest.mark.parametrize("dies", [1, 2])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_channels_that_work_at_once(dies, stall):
    config = DeviceConfig.preset("tiny", channels=4, dies=dies, blocks=4, pages=4, t_read_ns=500, t_program_ns=900)
    rng = random.Random(dies)
    channels = (1, 2, 3)
    nand = filled(config, rng, 0, {0: 4})
    for channel in channels:
        for die in range(dies):
            for block, pages in ((0, 4), (1, 0)):
                nand.erase(nand.ppn(block, 0, die, channel))
                for page in range(pages):
                    assert nand.program(nand.ppn(block, page, die, channel), random_page(config, rng))
    memory = MemoryModel(config.beat_bytes, latency=12, stall=stall, seed=1)
    for address, content in nand.dram():
        memory.write(address, content)
    dut = Flash(config, *channels)
    actors, lookups, wanted, dones = [], [], [], []
    for k, channel in enumerate(channels):
        reads = [read(t, rng.randrange(dies), 0, rng.randrange(4), rng.randrange(config.page_beats), rng.randint(1, 6))
                 for t in range(12)]
        pages = [random_page(config, rng) for _ in range(2 * dies)]
        programs = [program(t, t % dies, 1, t // dies) for t in range(2 * dies)]
        for c, page in zip(programs, pages, strict=True):
            assert nand.program(nand.ppn(1, c["page"], c["die"], channel), page)
        lookups.append(StreamSink(getattr(dut, f"lookup_data{k}"), stall, seed=10 + k))
        dones.append(StreamSink(getattr(dut, f"block_done{k}"), stall, seed=20 + k))
        wanted.append([expect_read(nand, channel, c) for c in reads])
        actors += [lookups[-1], dones[-1], StreamSource(getattr(dut, f"lookup_cmd{k}"), reads, stall, seed=30 + k),
                   StreamSource(getattr(dut, f"block_cmd{k}"), programs, stall, seed=40 + k),
                   StreamSource(getattr(dut, f"block_in{k}"), [b for p in pages for b in beats_of(config, p)], stall,
                                seed=50 + k)]
    simulate(dut, [*actors, memory.read_port(dut.mem_read), memory.write_port(dut.mem_write)], max_cycles=30_000, settle=200,
             until=lambda: all(len(d.items) == 2 * dies for d in dones)
             and all(len(s.items) == sum(len(b) for _, b, _ in w) for s, w in zip(lookups, wanted, strict=True)))
    for sink, expected in zip(lookups, wanted, strict=True):
        assert sorted(packets(sink)[0]) == sorted(expected)
    assert not any(d["error"] for sink in dones for d in sink.items)
    for channel in channels:
        check_dram(nand, channel, memory)


class Registers:
    """A channel's page memory at its port of the server: ``beats`` by address; it is busy with probability ``stall``.
    ``answers``: (job, whether it failed), by die."""

    def __init__(self, port, dies, stall, seed):
        self.port, self.stall, self.rng = port, stall, random.Random(seed)
        self.reads = StreamSource(port.read_job, [], stall, seed + 1)
        self.writes = StreamSource(port.write_job, [], stall, seed + 2)
        self.beats, self.jobs, self.answers = {}, [None] * dies, [[] for _ in range(dies)]

    def give(self, die, job):
        self.jobs[die] = job
        (self.reads if job["op"] == FlashOp.READ else self.writes).items.append(job)

    async def process(self, ctx):
        p, fetched = self.port, None
        while True:
            stalled, granted = self.rng.random() < self.stall, self.rng.random() >= self.stall
            ctx.set(p.load_stall, stalled)
            ctx.set(p.fetch_grant, granted)
            ctx.set(p.fetch_data, self.rng.getrandbits(len(p.fetch_data)) if fetched is None else self.beats[fetched])
            *_, load, to, data, fetch, at, done, read_error, write_error = await ctx.tick().sample(
                p.load_en, p.load_addr, p.load_data, p.fetch_en, p.fetch_addr, p.done, p.read_error, p.write_error)
            assert not (load and stalled)
            fetched = at if fetch and granted else None
            for die, job in enumerate(self.jobs):
                if done >> die & 1:
                    assert job is not None, "an answer that nobody waits for"
                    self.answers[die].append((job, read_error if job["op"] == FlashOp.READ else write_error))
                    self.jobs[die] = None
            if load:  # after the answer: a beat of this cycle is the next job's
                self.beats[to] = data


def test_jobs_of_all_dies_at_once():
    """Reads, programs and erases in and out of order, with page memories that are busy at times; some pages can't be
    read."""
    config = DeviceConfig.preset("tiny", channels=2, dies=2, blocks=2, pages=4)
    rng, dut, f, stall = random.Random(5), reused(ArrayServer, config), config.flash, 0.3
    nand = filled(config, rng, 0, {0: 2})
    unread = {nand.ppn(0, 1, die, channel) for die, channel in ((0, 0), (1, 1))}
    memory = MemoryModel(config.beat_bytes, latency=9, stall=stall, seed=1, fail=lambda a: any(
        0 <= a - config.layout.flash - ppn * f.page_bytes < f.page_bytes for ppn in failing))
    failing = set()
    for address, content in nand.dram():
        memory.write(address, content)
    channels = [Registers(dut.channel[k], f.dies, stall, 10 * k) for k in range(f.channels)]
    done, seen = [], set()

    def work(channel, die):
        unit, own, base = channels[channel], random.Random(f"{channel} {die}"), die * config.raw_page_beats

        async def process(ctx):
            for n in range(7):
                block, page = (own.randrange(2), own.randrange(f.pages)) if n else (0, 1)  # at first what may be unread
                ppn = nand.ppn(block, page, die, channel)
                kind = own.choice(["read", "read", "erase", "program", "program"]) if n else "read"
                if kind == "read":
                    column = own.randrange(config.raw_page_beats) if n else 0
                    job = read(n, die, block, page, column, own.randint(1, config.raw_page_beats - column))
                    if fails := column < config.page_beats and ppn in unread:
                        failing.add(ppn)
                elif kind == "erase":
                    job = erase(n, die, block)
                    fails = not nand.erase(ppn)
                else:
                    job = program(n, die, block, min(f.pages - 1, nand.block(ppn).next_page) if own.random() < 0.7 else page)
                    raw = random_page(config, own)
                    unit.beats.update((base + k, b) for k, b in enumerate(beats_of(config, raw)))
                    fails = not nand.program(nand.ppn(block, job["page"], die, channel), raw)
                unit.give(die, job)
                while len(unit.answers[die]) == n:
                    await ctx.tick()
                failing.discard(ppn)
                seen.add((kind, fails))
                assert unit.answers[die][n] == (job, int(fails))
                if kind == "read" and not fails:
                    window = [unit.beats[base + column + k] for k in range(job["beats"])]
                    assert window == expect_read(nand, channel, job)[1]
            done.append((channel, die))

        return process

    dies = [(channel, die) for channel in range(f.channels) for die in range(f.dies)]
    simulate(dut, [*(work(*d) for d in dies), *channels, *(s for c in channels for s in (c.reads, c.writes)),
                   memory.read_port(dut.mem_read), memory.write_port(dut.mem_write)],
             until=lambda: len(done) == len(dies), max_cycles=20_000)
    assert memory.pending == 0
    assert seen == {("read", False), ("read", True), ("program", False), ("program", True), ("erase", False)}
    for channel in range(f.channels):
        check_dram(nand, channel, memory)
