"""What the channel tests share: a channel with a DRAM filled from the NAND model, and its streams."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.reference.flash import NandArray
from nearflash_hw.flash import ArrayServer, Channel
from nearflash_hw.interfaces import FlashOp
from nearflash_hw.primitives.memport import MemReadSignature, MemWriteSignature
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel


class Flash(wiring.Component):
    """Channels ``indices`` with the array server, the others at rest. Ports are a channel's, numbered for several."""

    def __init__(self, config: DeviceConfig, *indices: int):
        self.config, self.indices = config, indices
        self.units = [Channel(config) for _ in indices]
        members = {f"{name}{k if len(indices) > 1 else ''}": member for k, unit in enumerate(self.units)
                   for name, member in unit.signature.members.items() if name != "array"}
        super().__init__({**members, "mem_read": Out(MemReadSignature(config.beat_bytes)),
                          "mem_write": Out(MemWriteSignature(config.beat_bytes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arrays = arrays = ArrayServer(self.config)
        connect(m, arrays.mem_read, flipped(self.mem_read))
        connect(m, arrays.mem_write, flipped(self.mem_write))
        for k, (index, unit) in enumerate(zip(self.indices, self.units, strict=True)):
            m.submodules[f"channel{index}"] = unit
            connect(m, unit.array, arrays.channel[index])
            for name, member in unit.signature.members.items():
                if name == "array":
                    continue
                inner, outer = getattr(unit, name), getattr(self, f"{name}{k if len(self.indices) > 1 else ''}")
                if member.is_signature:
                    connect(m, inner, flipped(outer))
                else:
                    m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        return m


def read(tag: int, die: int, block: int, page: int, column: int, beats: int) -> dict:
    return dict(op=FlashOp.READ, die=die, block=block, page=page, column=column, beats=beats, tag=tag)


def program(tag: int, die: int, block: int, page: int) -> dict:
    return dict(op=FlashOp.PROGRAM, die=die, block=block, page=page, column=0, beats=0, tag=tag)


def erase(tag: int, die: int, block: int) -> dict:
    return dict(op=FlashOp.ERASE, die=die, block=block, page=0, column=0, beats=0, tag=tag)


def beats_of(config: DeviceConfig, raw: bytes) -> list[int]:
    n = config.beat_bytes
    return [int.from_bytes(raw[i : i + n], "little") for i in range(0, len(raw), n)]


def random_page(config: DeviceConfig, rng: random.Random) -> bytes:
    return rng.randbytes(config.flash.page_bytes + config.flash.oob_bytes)


def filled(config: DeviceConfig, rng: random.Random, channel: int, pages: dict[int, int]) -> NandArray:
    """A NAND model with random contents on ``channel``: ``pages`` gives, per block, how many pages of each die are
    programmed."""
    nand = NandArray(config)
    for block, n in pages.items():
        for die in range(config.flash.channel_planes):
            nand.erase(nand.ppn(block, 0, die, channel))
            for page in range(n):
                assert nand.program(nand.ppn(block, page, die, channel), random_page(config, rng))
    return nand


@dataclass
class Result:
    """What came out: packets (tag, beats, error) and the cycle of each packet's last beat; (tag, error) of dones."""

    cycles: int
    reads_started: int = 0
    lookups: list[tuple[int, list[int], int]] = field(default_factory=list)
    lookup_cycles: list[int] = field(default_factory=list)
    blocks: list[tuple[int, list[int], int]] = field(default_factory=list)
    block_cycles: list[int] = field(default_factory=list)
    dones: list[tuple[int, int]] = field(default_factory=list)
    done_cycles: list[int] = field(default_factory=list)


def packets(sink: StreamSink) -> tuple[list, list[int]]:
    """Packets of a data stream; fails where a packet mixes tags or errors, or the last one is unfinished."""
    out, ends, open_packet = [], [], []
    for item, cycle in zip(sink.items, sink.cycles, strict=True):
        open_packet.append(item)
        if item["last"]:
            assert len({(i["tag"], i["error"]) for i in open_packet}) == 1
            out.append((item["tag"], [i["data"] for i in open_packet], item["error"]))
            ends.append(cycle)
            open_packet = []
    assert not open_packet
    return out, ends


class Late:
    """An actor that starts ``cycles`` later."""

    def __init__(self, actor, cycles: int):
        self.actor, self.cycles = actor, cycles

    async def process(self, ctx) -> None:
        for _ in range(self.cycles):
            await ctx.tick()
        await self.actor.process(ctx)


class Absent:
    """In place of the source or sink at a port that the channel doesn't have."""

    items, cycles, drained = (), (), True

    async def process(self, ctx) -> None:
        pass


def run_channel(config: DeviceConfig, channel: int = 0, *, nand: NandArray | None = None, lookups: Iterable[dict] = (),
                blocks: Iterable[dict] = (), pages: Iterable[bytes] = (), memory: MemoryModel | None = None,
                stall: float = 0.0, seed: int = 0, max_cycles: int = 20_000, settle: int = 400,
                pages_from: int = 0, block_data_from: int = 0, hold_until: int = 0) -> Result:
    """Send everything, wait for every answer, check that nothing more comes and the channel is at rest. The page
    source and the sink of block data start at cycles ``pages_from`` and ``block_data_from``; no page of the block path may
    start before ``hold_until``."""
    lookups, blocks = list(lookups), list(blocks)
    dut = reused(Flash, config, channel)
    memory = memory or MemoryModel(config.beat_bytes, latency=5, stall=stall, seed=seed)
    if nand:
        for address, content in nand.dram():
            memory.write(address, content)
    raw_beats = [b for p in pages for b in beats_of(config, p)]
    queries = config.lookup.max_tables > 0
    assert queries or not lookups
    lookup_src = StreamSource(dut.lookup_cmd, lookups, stall, seed + 1) if queries else Absent()
    block_src = StreamSource(dut.block_cmd, blocks, stall, seed + 2)
    page_src = StreamSource(dut.block_in, raw_beats, stall, seed + 3)
    lookup_sink = StreamSink(dut.lookup_data, stall, seed + 4) if queries else Absent()
    block_sink = StreamSink(dut.block_data, stall, seed + 5)
    done_sink = StreamSink(dut.block_done, stall, seed + 6)
    n_lookup = sum(c["beats"] for c in lookups)
    n_block = sum(c["beats"] for c in blocks)
    n_done = sum(c["op"] != FlashOp.READ for c in blocks)
    at_rest, started = {}, {"reads": 0, "programs": 0}

    async def watch(ctx):
        while True:
            _, _, busy, bus, read_valid, write_valid, read_started, program_started = await ctx.tick().sample(
                dut.die_busy, dut.bus_busy, dut.mem_read.req.valid, dut.mem_write.req.valid, dut.read_started,
                dut.program_started)
            started["reads"] += read_started
            started["programs"] += program_started
            at_rest["now"] = not (busy or bus or read_valid or write_valid)

    async def hold(ctx):
        for cycle in range(hold_until):
            ctx.set(dut.block_hold, 1)
            await ctx.tick()
            waited["for"] = cycle if ctx.get(dut.block_waits) else waited["for"]
        ctx.set(dut.block_hold, 0)

    waited = {"for": 0}
    cycles = simulate(
        dut, [hold, lookup_src, block_src, Late(page_src, pages_from), lookup_sink, Late(block_sink, block_data_from),
              done_sink, watch, memory.read_port(dut.mem_read), memory.write_port(dut.mem_write)],
        until=lambda: (len(lookup_sink.items) >= n_lookup and len(block_sink.items) >= n_block
                       and len(done_sink.items) >= n_done),
        max_cycles=max_cycles, settle=settle)
    assert all(s.drained for s in (lookup_src, block_src, page_src))
    assert at_rest["now"]
    assert memory.pending == 0
    assert waited["for"] == max(0, hold_until - 1), "no die waited to the end of the hold"
    ops = [c["op"] for c in lookups + blocks]
    assert started["programs"] == ops.count(FlashOp.PROGRAM)
    if not config.t_ccs:
        assert started["reads"] == ops.count(FlashOp.READ)
    assert (len(lookup_sink.items), len(block_sink.items), len(done_sink.items)) == (n_lookup, n_block, n_done)
    r = Result(cycles, started["reads"])
    r.lookups, r.lookup_cycles = packets(lookup_sink)
    r.blocks, r.block_cycles = packets(block_sink)
    r.block_cycles = [t + block_data_from for t in r.block_cycles]
    r.dones = [(d["tag"], d["error"]) for d in done_sink.items]
    r.done_cycles = done_sink.cycles
    return r


def expect_read(nand: NandArray, channel: int, c: dict) -> tuple[int, list[int], int]:
    raw = nand.read(nand.ppn(c["block"], c["page"], c["die"], channel), c["column"], c["beats"])
    return c["tag"], beats_of(nand.config, raw), 0


def check_dram(nand: NandArray, channel: int, memory: MemoryModel) -> None:
    """Block states and the readable pages of ``channel`` in DRAM are those of the model."""
    config = nand.config
    f, layout = config.flash, config.layout
    states = {a: b for a, b in nand.dram() if a >= layout.block_state}
    for i in range(f.blocks * f.dies * f.channels):
        a = layout.block_state + 8 * i
        assert memory.read(a, 8) == states.get(a, bytes(8)), f"state of block {i}"
    for ppn in range(channel, f.total_pages, f.channels):
        if nand.address(ppn)[1] < nand.block(ppn).next_page:
            got = memory.read(layout.flash + ppn * f.page_bytes, f.page_bytes) \
                + memory.read(layout.oob + ppn * f.oob_bytes, f.oob_bytes)
            assert got == nand.read(ppn), f"page {ppn}"
