"""An operator's unit with what it shares with the others (epilogue or array), run on descriptors of the contract."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import Descriptor, TensorConfig, check, pack
from nearflash.contract.tensor_image import pack_tensor
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import MemReadSignature
from nearflash_hw.tensor.array import PixelArray
from nearflash_hw.tensor.engine import OUTSTANDING_WRITES, PLANNED
from nearflash_hw.tensor.epilogue import Epilogue
from nearflash_hw.tensor.input_buffer import InputTiles
from nearflash_hw.tensor.planner import ConvPlanner, descriptor_layout
from nearflash_sim.bench import StreamSink, reused, simulate
from nearflash_sim.models import AxiSlave, MemoryModel

EPILOGUE_FIELDS = ("low", "high", "residual", "residual_mult", "residual_shift", "frac", "offset", "lookup")


def connect_tiles(m: Module, unit, config: TensorConfig, beat_bytes: int, plan, mem_read) -> None:
    """The input buffer that an engine has, for ``unit`` alone."""
    m.submodules.tiles = tiles = InputTiles(config, beat_bytes)
    connect(m, unit.x_tile, tiles.tile)
    connect(m, tiles.mem_read, flipped(mem_read))
    m.d.comb += [
        tiles.plan.eq(plan),
        tiles.read.eq(unit.x_read),
        tiles.release.eq(unit.x_release),
        unit.x_available.eq(tiles.available),
        unit.x_data.eq(tiles.data),
        unit.x_error.eq(tiles.error),
    ]


class Whole(wiring.Component):
    """``unit(config, beat_bytes)`` beside an epilogue whose control is the descriptor's, or beside the array, and with the
    planner and the input buffer (whose memory port is the last), if it needs them."""

    def __init__(self, unit, config: TensorConfig, beat_bytes: int):
        self.unit, self.epilogue = unit(config, beat_bytes), Epilogue(config.lanes)
        self.config, self.beat_bytes = config, beat_bytes
        members = self.unit.signature.members
        reads = len(self.unit.mem_read) + ("x_tile" in members)
        super().__init__({name: members[name] for name in ("start", "done", "mem_write")} | {
            "mem_read": Out(MemReadSignature(beat_bytes)).array(reads), "descriptor": In(descriptor_layout()),
            "table": In(self.epilogue.table.shape()), "idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        unit, epilogue = self.unit, self.epilogue
        m.submodules.unit = unit
        if "sums" in unit.signature.members:
            m.submodules.epilogue = epilogue
        members, c = unit.signature.members, self.config
        if "sums" in members:
            connect(m, unit.sums, epilogue.i)
            connect(m, unit.entry, epilogue.entry)
            connect(m, epilogue.o, unit.codes)
            m.d.comb += self.idle.eq(epilogue.idle)
        if "residual" in members:
            connect(m, unit.residual, epilogue.r)
        if "step" in members:
            m.submodules.array = array = PixelArray(c.rows, c.columns, c.pixels, c.lanes, self.beat_bytes)
            connect(m, unit.step, array.i)
            connect(m, unit.weight, array.weight)
            connect(m, array.o, unit.array_sums)
            m.d.comb += self.idle.eq(array.idle)
        for k, port in enumerate(unit.mem_read):
            connect(m, port, flipped(self.mem_read[k]))
        connect(m, unit.mem_write, flipped(self.mem_write))
        connect(m, unit.done, flipped(self.done))
        if "plan" in members:
            m.submodules.planner = planner = ConvPlanner(c, self.beat_bytes)
            if "x_tile" in members:
                connect_tiles(m, unit, c, self.beat_bytes, planner.plan, self.mem_read[-1])
            planned = [planner.done, *(Signal(name=f"planned{k}") for k in range(PLANNED))]
            m.d.sync += [b.eq(a) for a, b in zip(planned, planned[1:], strict=False)]
            m.d.comb += [
                planner.descriptor.eq(self.descriptor),
                planner.start.eq(self.start),
                unit.plan.eq(planner.plan),
                unit.start.eq(planned[-1]),
            ]
        else:
            m.d.comb += [
                unit.descriptor.eq(self.descriptor),
                unit.start.eq(self.start),
            ]
        m.d.comb += [
            epilogue.table.eq(self.table),
            *(epilogue.control[n].eq(self.descriptor[n]) for n in EPILOGUE_FIELDS),
        ]
        return m


class OnAxi(wiring.Component):
    """The same on one AXI port."""

    def __init__(self, unit, config: TensorConfig, beat_bytes: int):
        self.inner = Whole(unit, config, beat_bytes)
        self.bus = MemInterconnect(beat_bytes, len(self.inner.mem_read), 1, outstanding_writes=OUTSTANDING_WRITES,
                                  dense_writes=(0,))
        members = self.inner.signature.members
        super().__init__({name: members[name] for name in ("descriptor", "start", "done", "table", "idle")} | {
            "m_axi": Out(AxiSignature(self.bus.bus.address_bits, 8 * beat_bytes, self.bus.bus.id_bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner, m.submodules.bus = inner, bus = self.inner, self.bus
        for k, port in enumerate(inner.mem_read):
            connect(m, port, bus.read[k])
        connect(m, inner.mem_write, bus.write[0])
        connect(m, bus.axi, flipped(self.m_axi))
        connect(m, inner.done, flipped(self.done))
        m.d.comb += [
            inner.descriptor.eq(self.descriptor),
            inner.start.eq(self.start),
            inner.table.eq(self.table),
            self.idle.eq(inner.idle),
        ]
        return m


class Job:
    """A descriptor, what memory holds before by address, the output [H, W, C] and the table, if any. ``fails``: address of a
    beat whose transfer is answered with an error."""

    def __init__(self, descriptor: Descriptor, image: dict[int, bytes], y: np.ndarray, table: np.ndarray | None = None):
        self.descriptor, self.image, self.y, self.table = descriptor, image, y, table
        self.fails: int | None = None

    def failing(self, address: int) -> Job:
        self.fails = address
        return self

    def after(self, beat: int) -> dict[int, int]:
        """Memory afterwards, byte by byte: what was there, and the output over it."""
        content = {}
        for address, raw in [*self.image.items(), (self.descriptor["y"], pack_tensor(self.y, beat))]:
            content |= {address + k: b for k, b in enumerate(raw)}
        return content


async def begin(ctx, dut, job: Job) -> None:
    ctx.set(dut.descriptor.as_value(), int.from_bytes(pack(job.descriptor), "little"))
    if job.table is not None:
        for k, code in enumerate(job.table.tolist()):
            ctx.set(dut.table, {"en": 1, "index": k, "code": code & 255})
            await ctx.tick()
        ctx.set(dut.table, {"en": 0, "index": 0, "code": 0})
    await ctx.tick().repeat(3)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


def run(unit, jobs: list[Job], config: TensorConfig, beat: int, stall: float = 0.0) -> list[int]:
    """One after the other on one unit, every port with a memory of its own of 12 cycles' latency: every output is the job's,
    nothing else was written, nothing is left, and ``done`` says once of those that fail that they did. Cycles of each, from
    start to done."""
    for job in jobs:
        check(job.descriptor, config, beat)
    dut = reused(Whole, unit, config, beat)
    memory = MemoryModel(beat, latency=12, stall=stall, seed=len(jobs))
    done, after, idle, cycles = StreamSink(dut.done, stall, 7), [], [], []

    async def start(ctx):
        for job in jobs:
            memory.bytes.clear()
            for address, content in job.image.items():
                memory.write(address, content)
            memory.fail = lambda at, bad=job.fails: at == bad
            await begin(ctx, dut, job)
            cycles.append(0)
            while len(done.items) == len(after):
                await ctx.tick()
                cycles[-1] += 1
            idle.append(ctx.get(dut.idle))
            after.append(dict(memory.bytes))

    ports = [memory.read_port(p) for p in dut.mem_read] + [memory.write_port(dut.mem_write)]
    simulate(dut, [start, done, *ports], until=lambda: len(after) == len(jobs), max_cycles=20_000)
    assert memory.pending == 0
    assert done.items == [{"error": int(job.fails is not None)} for job in jobs]
    assert all(idle)
    for n, (job, content) in enumerate(zip(jobs, after, strict=True)):
        expected = job.after(beat)
        wrong = sorted(a for a in expected.keys() | content.keys() if expected.get(a) != content.get(a))
        assert not wrong, f"job {n}: {len(wrong)} of {len(expected)} bytes are wrong, the first at {wrong[0]:#x}"
    return cycles


def cycles_on_axi(unit, job: Job, config: TensorConfig, beat: int) -> tuple[int, int, int]:
    """(cycles from start to done, beats read, beats written), all ports on one AXI memory; the output is the job's."""
    dut = reused(OnAxi, unit, config, beat)
    memory = AxiSlave(dut.m_axi, beat, latency=20, seed=7)
    for address, content in job.image.items():
        for k in range(0, len(content), beat):
            memory.memory[address + k] = int.from_bytes(content[k:k + beat], "little")
    done, started = StreamSink(dut.done), []

    async def start(ctx):
        await begin(ctx, dut, job)
        started.append(True)
        while True:
            await ctx.tick()
            started.append(True)

    simulate(dut, [start, done, memory.process], until=lambda: bool(done.items), max_cycles=20_000)
    raw = pack_tensor(job.y, beat)
    got = b"".join(memory.memory[job.descriptor["y"] + k].to_bytes(beat, "little") for k in range(0, len(raw), beat))
    assert got == raw
    assert memory.idle
    return len(started), len(memory.r_busy), len(memory.w_busy)
