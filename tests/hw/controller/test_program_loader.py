"""Parameter images, good and bad, against the contract's own list of records."""

import random
import struct
from dataclasses import replace

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from nearflash.contract import AdminOpcode, ConfigError, DeviceConfig, Node, Opcode, Status, cores
from nearflash.contract.nvme import sqe
from nearflash.contract.program import DRAM, UNIT, dram_weight_address, expected_records, record, weight_units
from nearflash_hw.controller.nvme import Nvme
from nearflash_hw.controller.program_loader import ProgramLoader
from nearflash_hw.host.host_dma import HostReader
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel
from nearflash_sim.models.nvme_host import Host

TINY = DeviceConfig.preset("tiny")
BUFFER, LIST = 0x100000, 0x80000


def device(width=8):
    graph = (
        Node("d", "dense", 8), Node("t", "tables", 16, tables=(0, 1)),
        Node("bot", "fc", 8, ("d",), kr=2, kc=4, weights="dram"),
        Node("x", "dot", 3, ("bot", "t"), dim=8),
        Node("h", "fc", 6, ("bot", "x"), kr=1, kc=1, decomposed=True),
        Node("big", "fc", 24, ("h",), kr=1, kc=2, weights="dram"),
        Node("top", "fc", 1, ("big",), kc=4),
    )
    return replace(TINY, beat_bytes=width, lookup=replace(TINY.lookup, lanes=width // 4),
                   mlp=replace(TINY.mlp, graph=graph))


def good_records(config, rng):
    """(target, data, address) of every record, in random order."""
    out = [(t, rng.randbytes(u * UNIT), 0) for t, u in expected_records(config).items()]
    out += [(DRAM, rng.randbytes(weight_units(c, config.beat_bytes) * UNIT), dram_weight_address(config, c))
            for c in cores(config.mlp.graph) if c.weights == "dram"]
    rng.shuffle(out)
    return out


def image(records):
    return b"".join(record(*r) for r in records)


class Top(Elaboratable):
    def __init__(self, config):
        self.loader, self.reader = ProgramLoader(config), HostReader(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.reader = self.loader, self.reader
        connect(m, self.loader.host_req, self.reader.req)
        connect(m, self.reader.data, self.loader.host_data)
        return m


class Run:
    """Loads ``images`` one after the other (bytes, or (bytes, number of words)) and keeps what came of each."""

    def __init__(self, config, images, stall=0.0, fail=lambda a: False, dram_fail=lambda a: False,
                 bad_page=None, max_cycles=60_000):
        top = reused(Top, config)
        dut = top.loader
        memory = MemoryModel(config.beat_bytes, stall=stall, seed=1, fail=fail)
        self.dram = MemoryModel(config.beat_bytes, stall=stall, seed=2, fail=dram_fail)
        items, base, lists = [], BUFFER, LIST
        for img in images:
            raw, words = img if isinstance(img, tuple) else (img, len(img) // 4)
            memory.write(base, raw)
            pages = [base + 4096 * k for k in range(1, -(-max(len(raw), 1) // 4096))]
            if bad_page:
                pages[bad_page - 1] += 1
            for k, p in enumerate(pages):
                memory.write(lists + 8 * k, p.to_bytes(8, "little"))
            items.append({"words": words, "prp1": base, "prp2": lists if len(pages) > 1 else (pages or [0])[0]})
            base += 0x8000
            lists += 0x1000
        self.loaded = []
        self.split = []  # parameter beats seen when each image was answered
        beats = StreamSink(dut.parameter, stall, seed=3)

        async def watch(ctx):
            while True:
                _, _, valid, ready, loaded = await ctx.tick().sample(dut.result.valid, dut.result.ready, dut.loaded)
                if valid and ready:
                    self.loaded.append(loaded)
                    self.split.append(len(beats.items))

        src, sink = StreamSource(dut.req, items, stall, seed=4), StreamSink(dut.result, stall, seed=5)
        simulate(top, [src, beats, watch, sink, memory.read_port(top.reader.list_read),
                       memory.read_port(top.reader.data_read), self.dram.write_port(dut.dram_write)],
                 until=lambda: len(sink.items) == len(items) and src.drained, max_cycles=max_cycles)
        assert memory.pending == 0
        assert self.dram.pending == 0
        self.results = [(r["status"], r["dw0"]) for r in sink.items]
        self.width = config.beat_bytes
        self.beats = beats.items

    def records(self, k=0):
        """(target, data) of the parameter records of image ``k``."""
        out, cur = [], None
        for b in self.beats[self.split[k - 1] if k else 0 : self.split[k]]:
            if b["first"]:
                assert cur is None, "a record began inside another"
                cur = (b["target"], b"")
            assert cur is not None
            assert cur[0] == b["target"]
            cur = (cur[0], cur[1] + b["data"].to_bytes(self.width, "little"))
            if b["last"]:
                out.append(cur)
                cur = None
        assert cur is None, "a record did not end"
        return out


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_good_images_reach_their_targets(width, stall):
    config = device(width)
    rng = random.Random(width)
    programs = [good_records(config, rng) for _ in range(3)]
    run = Run(config, [image(p) for p in programs], stall)
    assert run.results == [(0, 0)] * 3
    assert run.loaded == [1, 1, 1]
    for k, p in enumerate(programs):
        assert run.records(k) == [(t, d) for t, d, _ in p if t != DRAM]
    on_dram = [(d, a) for t, d, a in programs[-1] if t == DRAM]
    assert len(on_dram) == 2
    for d, a in on_dram:
        assert run.dram.read(a, len(d)) == d
    assert len(run.dram.bytes) == sum(len(d) for d, _ in on_dram)


def test_a_large_dram_record_is_split_and_whole():
    graph = (Node("d", "dense", 128), Node("f", "fc", 80, ("d",), kr=8, kc=8, weights="dram"),
             Node("top", "fc", 1, ("f",)))
    config = replace(TINY, mlp=replace(TINY.mlp, graph=graph))
    program = good_records(config, random.Random(1))
    size = next(len(d) for t, d, _ in program if t == DRAM)
    assert size == 128 * 80 > 1024 * 8
    run = Run(config, [image(program)])
    assert run.results == [(0, 0)]
    d, a = next((d, a) for t, d, a in program if t == DRAM)
    assert run.dram.read(a, size) == d
    assert len(run.dram.bytes) == size


def bad_images(config, rng):
    """(what, image or (image, words), record at fault)."""
    g = good_records(config, rng)
    n = len(g)
    dram = next(k for k, r in enumerate(g) if r[0] == DRAM)
    chip = next(k for k, r in enumerate(g) if r[0] != DRAM)

    def changed(k, target=None, data=None, address=None):
        t, d, a = g[k]
        return image([*g[:k], (t if target is None else target, d if data is None else data,
                               a if address is None else address), *g[k + 1 :]])

    def header(k, units):
        t, d, a = g[k]
        return image(g[:k]) + struct.pack("<IIQ", t, units, a) + d + image(g[k + 1 :])

    units = len(g[chip][1]) // UNIT
    yield "missing last", image(g[:-1]), n - 1
    yield "missing first", image(g[1:]), n - 1
    yield "missing DRAM", image(g[:dram] + g[dram + 1 :]), n - 1
    yield "only one", image(g[:1]), 1
    yield "twice", image([*g, g[chip]]), n
    yield "DRAM twice", image([*g[: dram + 1], g[dram], *g[dram + 1 :]]), dram + 1
    yield "unknown target", changed(chip, target=0x77), chip
    yield "target beyond 16 bits", changed(chip, target=g[chip][0] | 1 << 16), chip
    yield "target beyond 16 bits, DRAM", changed(dram, target=DRAM | 1 << 31), dram
    yield "a DRAM core's own target", changed(chip, target=0), chip
    yield "too long", changed(chip, data=g[chip][1] + bytes(UNIT)), chip
    yield "too short", changed(chip, data=g[chip][1][:-UNIT]), chip
    yield "DRAM too short", changed(dram, data=g[dram][1][:-UNIT]), dram
    yield "DRAM too long", changed(dram, data=g[dram][1] + bytes(UNIT)), dram
    yield "address on chip", changed(chip, address=16), chip
    yield "wrong DRAM address", changed(dram, address=g[dram][2] + 4096), dram
    yield "DRAM address 0", changed(dram, address=0), dram
    yield "DRAM address beyond 40 bits", changed(dram, address=g[dram][2] | 1 << 40), dram
    yield "length 0", header(chip, 0), chip
    yield "length beyond the image", header(n - 1, 1 << 31), n - 1
    yield "length with high bits", header(chip, units | 1 << 28), chip
    yield "cut in a record", image(g)[:-UNIT], n - 1
    yield "cut after a header", image(g[:-1]) + record(*g[-1])[:UNIT], n - 1
    yield "trailing unit", image(g) + bytes(UNIT), n
    yield "not whole units", (image(g) + bytes(UNIT), len(image(g)) // 4 + 1), 0
    yield "no words", (image(g), 0), 0


@pytest.mark.parametrize("width", [8, 16])
def test_bad_images_are_refused_and_the_next_good_one_works(width):
    config = device(width)
    rng = random.Random(5)
    cases = list(bad_images(config, rng))
    good = [image(good_records(config, rng)) for _ in cases]
    run = Run(config, [img for (_, bad, _), g in zip(cases, good, strict=True) for img in (bad, g)])
    for k, (what, _, position) in enumerate(cases):
        assert run.results[2 * k : 2 * k + 2] == [(Status.BAD_PROGRAM, position), (0, 0)], what
        assert run.loaded[2 * k : 2 * k + 2] == [0, 1], what
        run.records(2 * k)  # whatever was sent has its first and last
        run.records(2 * k + 1)


def test_host_errors_end_the_load():
    config = device()
    program = good_records(config, random.Random(7))
    raw = image(program)
    assert len(raw) < 4096
    run = Run(config, [raw, raw, raw], fail=lambda a: a == BUFFER + 0x8000 + 64)  # in the second image
    assert [r[0] for r in run.results] == [0, Status.DATA_TRANSFER_ERROR, 0]
    assert run.loaded == [1, 0, 1]
    for k in range(3):
        run.records(k)
    run = Run(config, [(raw, 1 << 30), raw])
    assert [r[0] for r in run.results] == [Status.INVALID_FIELD, 0]


@pytest.mark.parametrize("dram", [False, True])
def test_a_transfer_cut_in_a_record(dram):
    graph = (Node("d", "dense", 64), Node("f", "fc", 80, ("d",), kr=8, kc=8, weights="dram" if dram else "onchip"),
             Node("top", "fc", 1, ("f",)))
    config = replace(TINY, mlp=replace(TINY.mlp, graph=graph))
    program = good_records(config, random.Random(1))
    program.sort(key=lambda r: len(r[1]))  # the weights of f, more than a page, last
    assert len(program[-1][1]) == 5120
    run = Run(config, [image(program)], bad_page=1)
    assert run.results == [(Status.INVALID_PRP_OFFSET, len(program) - 1)]
    assert run.loaded == [0]
    got = run.records()
    assert got[: len(program) - 1] == [(t, d) for t, d, _ in program[:-1] if t != DRAM]
    if dram:
        d, a = program[-1][1:]
        n = len(run.dram.bytes)
        assert 0 < n < len(d)
        assert run.dram.read(a, n) == d[:n]
    else:
        assert 0 < len(got[-1][1]) < 5120


def test_a_dram_error_is_a_write_fault():
    config = device()
    program = good_records(config, random.Random(9))
    at = next(k for k, r in enumerate(program) if r[0] == DRAM)
    address = program[at][2]
    run = Run(config, [image(program)] * 2, dram_fail=lambda a: a == address + 8)
    assert run.results == [(Status.WRITE_FAULT, at)] * 2
    assert run.loaded == [0, 0]


def test_beats_wider_than_a_unit_need_no_mlp():
    with pytest.raises(ConfigError, match="beat_bytes"):
        ProgramLoader(device(32))
    rtlil.convert(Nvme(replace(TINY, beat_bytes=32, lookup=replace(TINY.lookup, lanes=8))))


def test_through_the_host_interface():
    config = device(16)
    rng = random.Random(2)
    host = Host(config, stall=0.1)
    good, bad = image(good_records(config, rng)), image(good_records(config, rng)[1:])

    def load(cid, raw, at):
        host.memory.write(at, raw)
        assert len(raw) <= 4096
        return sqe(AdminOpcode.PROGRAM_LOAD, cid, prp1=at, cdw10=len(raw) // 4)

    def infer(cid):
        return sqe(Opcode.INFER, cid, nsid=1)

    async def scenario(ctx, host):
        await host.start(ctx)
        assert (await host.command(ctx, 1, infer))[0] == Status.NO_PROGRAM
        for raw, status, then in ((good, 0, 0), (bad, Status.BAD_PROGRAM, Status.NO_PROGRAM), (good, 0, 0)):
            assert (await host.command(ctx, 0, lambda cid, r=raw: load(cid, r, 0x70_0000)))[0] == status
            assert ctx.get(host.dut.program_loaded) == (status == 0)
            assert (await host.command(ctx, 1, infer))[0] == then
        # an INFER that arrives during a load waits for what comes of it
        for raw, then in ((bad, Status.NO_PROGRAM), (good, 0)):
            host.put(0, load(0x99, raw, 0x70_0000))
            await host.ring_sq(ctx, 0)
            for _ in range(60):
                await ctx.tick()
            assert ctx.get(host.dut.program_loaded) == 0
            assert (await host.command(ctx, 1, infer))[0] == then
            assert (await host.completion(ctx, 0))[1] == 0x99
        # the program outlives CC.EN = 0
        await host.stop(ctx)
        await host.start(ctx)
        assert (await host.command(ctx, 1, infer))[0] == 0

    host.run(scenario, max_cycles=40_000)
