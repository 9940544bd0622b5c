import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from conv_plans import random_conv
from nearflash.contract.tensor import TensorConfig
from nearflash.contract.tensor_image import pack_tensor
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import MemReadSignature
from nearflash_hw.tensor.array import PixelArray
from nearflash_hw.tensor.conv import Convolution
from nearflash_hw.tensor.epilogue import Epilogue
from nearflash_hw.tensor.plan import conv_layout
from nearflash_sim.bench import StreamSink, reused, simulate
from nearflash_sim.models import AxiSlave, MemoryModel
from operator_bench import connect_tiles

# Far below TensorConfig.validate's limits: an elaborated array costs by its multipliers.
SMALL = TensorConfig(rows=4, columns=8, pixels=8, lanes=2, input_bytes=4096, weight_bytes=2048, max_channels=64)
WIDE = TensorConfig(rows=4, columns=16, pixels=8, lanes=4, input_bytes=4096, weight_bytes=2048, max_channels=64)
WHOLE = TensorConfig(rows=8, columns=8, pixels=8, lanes=8, input_bytes=4096, weight_bytes=4096, max_channels=64)
AT = {"x": 0x1000, "y": 0x8000, "r": 0x10000, "weights": 0x18000, "entries": 0x20000}


class WithEpilogue(wiring.Component):
    """A convolution, and the array and the epilogue that its engine would have."""

    def __init__(self, config, beat):
        self.conv, self.epilogue = Convolution(config, beat), Epilogue(config.lanes)
        self.array = PixelArray(config.rows, config.columns, config.pixels, config.lanes, beat)
        members = self.conv.signature.members
        super().__init__({name: members[name] for name in ("plan", "start", "done", "mem_write")} | {
            "mem_read": Out(MemReadSignature(beat)).array(len(self.conv.mem_read) + 1),
            "table": In(self.epilogue.table.shape())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.conv, m.submodules.epilogue = conv, epilogue = self.conv, self.epilogue
        m.submodules.array = array = self.array
        m.d.comb += [conv.plan.eq(self.plan), conv.start.eq(self.start), epilogue.control.eq(self.plan.epilogue),
                     epilogue.table.eq(self.table)]
        for source, sink in ((conv.step, array.i), (conv.weight, array.weight), (array.o, conv.array_sums),
                             (conv.sums, epilogue.i), (conv.entry, epilogue.entry), (conv.residual, epilogue.r),
                             (epilogue.o, conv.codes), (conv.done, flipped(self.done)),
                             (conv.mem_write, flipped(self.mem_write)),
                             *((port, flipped(self.mem_read[k])) for k, port in enumerate(conv.mem_read))):
            connect(m, source, sink)
        connect_tiles(m, conv, self.conv.config, self.conv.beat_bytes, self.plan, self.mem_read[-1])
        return m


async def begin(ctx, dut, conv, c, beat):
    ctx.set(dut.plan, conv.plan(c, beat, AT))
    if conv.table is not None:
        for k, code in enumerate(conv.table.tolist()):
            ctx.set(dut.table, {"en": 1, "index": k, "code": code & 255})
            await ctx.tick()
        ctx.set(dut.table, {"en": 0, "index": 0, "code": 0})
    await ctx.tick().repeat(3)


def run(convs, c=SMALL, beat=8, stall=0.0, fail=lambda addr: False):
    """Convolutions one after the other; for each what ``done`` said and the memory afterwards."""
    dut = reused(WithEpilogue, c, beat)
    memory = MemoryModel(beat, latency=12, stall=stall, seed=1, fail=fail)
    done, after = StreamSink(dut.done), []

    async def start(ctx):
        for conv in convs:
            memory.bytes.clear()
            for address, content in conv.image(c, beat, AT).items():
                memory.write(address, content)
            await begin(ctx, dut, conv, c, beat)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            while len(done.items) == len(after):
                await ctx.tick()
            after.append(dict(memory.bytes))

    ports = [memory.read_port(p) for p in dut.mem_read] + [memory.write_port(dut.mem_write)]
    simulate(dut, [start, done, *ports], until=lambda: len(after) == len(convs), max_cycles=20_000)
    assert memory.pending == 0
    return done.items, after


def check(conv, content, c=SMALL, beat=8):
    """``content``, by address, is the model's output and what was there before, and nothing else."""
    expected = {}
    for address, raw in [*conv.image(c, beat, AT).items(), (AT["y"], pack_tensor(conv.expected(), beat))]:
        expected |= {address + k: b for k, b in enumerate(raw)}
    wrong = sorted(a for a in expected.keys() | content.keys() if expected.get(a) != content.get(a))
    assert not wrong, f"{len(wrong)} of {len(expected)} bytes are wrong, the first at {wrong[0]:#x}"


SHAPES = {
    "linear layer, one block of tokens after another": {
        "size": (1, 13, 20), "outputs": 6, "kernel": (1, 1), "out": (1, 13), "tile": (1, 8)},
    "3x3 with padding, tiles that don't divide": {
        "size": (7, 5, 8), "outputs": 5, "kernel": (3, 3), "out": (7, 5), "tile": (2, 4), "pad": (1, 1), "pad_value": -127},
    "stride 2, even size, padding on two sides only": {
        "size": (6, 8, 3), "outputs": 4, "kernel": (3, 3), "out": (3, 4), "tile": (2, 3), "stride": 2, "pad": (1, 1)},
    "kernel = stride": {
        "size": (8, 8, 4), "outputs": 3, "kernel": (4, 4), "out": (2, 2), "tile": (1, 2), "stride": 4},
    "tiles of a pixel": {
        "size": (2, 3, 9), "outputs": 9, "kernel": (2, 3), "out": (2, 3), "tile": (1, 1), "pad": (1, 2), "pad_value": 7},
    "16 bits, residual of 16": {
        "size": (3, 4, 8), "outputs": 7, "kernel": (1, 1), "out": (3, 4), "tile": (2, 4), "wide": True, "residual": True},
    "8 bits, residual of 8, table": {
        "size": (3, 4, 8), "outputs": 11, "kernel": (3, 1), "out": (3, 4), "tile": (2, 4), "pad": (1, 0), "residual": False,
        "lookup": True},
    "shuffled, groups of channels that are no whole blocks": {
        "size": (3, 4, 6), "outputs": 4 * 5, "kernel": (1, 1), "out": (3, 4), "tile": (2, 3), "shuffle": 2, "residual": True,
        "wide": True},
}


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_output_is_the_models(name, held):
    """Weights streamed for every tile, and one output block's held for all of them."""
    conv = random_conv(np.random.default_rng(len(name) + held), **SHAPES[name], group=held)
    done, after = run([conv], stall=0.3 * held)
    assert done == [{"error": 0}]
    check(conv, after[0])


def test_one_after_the_other():
    """Nothing of a convolution is left when the next begins: groups of blocks, residuals, places in a square."""
    rng = np.random.default_rng(3)
    convs = [random_conv(rng, **SHAPES[name], group=group) for name, group in [
        ("linear layer, one block of tokens after another", 2), ("16 bits, residual of 16", 1),
        ("shuffled, groups of channels that are no whole blocks", 2), ("8 bits, residual of 8, table", 2)]]
    done, after = run(convs)
    assert done == [{"error": 0}] * len(convs)
    for conv, content in zip(convs, after, strict=True):
        check(conv, content)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("config", "beat"), [(WIDE, 16), (WHOLE, 8)])
def test_lanes_and_beats(config, beat, wide):
    """Four lanes of beats of 16 bytes: strobes, residuals from the middle of a beat, zeros behind the last channel. Eight of
    8: one beat or two, of which the last channels fill the first."""
    conv = random_conv(np.random.default_rng(4 + wide), size=(3, 3, 17), outputs=4 * 9, kernel=(2, 2), out=(3, 3),
                       tile=(2, 3), pad=(1, 0), shuffle=2, residual=wide, wide=wide, group=2)
    done, after = run([conv], config, beat, stall=0.2)
    assert done == [{"error": 0}]
    check(conv, after[0], config, beat)


@pytest.mark.parametrize("bad", ["x", "weights", "entries", "r", "y"])
def test_a_failed_transfer_is_said_once(bad):
    rng = np.random.default_rng(5)
    shape = SHAPES["16 bits, residual of 16"]
    first, second = random_conv(rng, **shape), random_conv(rng, **shape)
    failing = [AT[bad] + 16]
    done, after = run([first, second], fail=lambda addr: addr in failing and bool(failing.pop()))
    assert done == [{"error": 1}, {"error": 0}]
    check(second, after[1])


class OnAxi(wiring.Component):
    """The convolution and its one bus."""

    def __init__(self, config, beat):
        self.conv, self.bus = WithEpilogue(config, beat), MemInterconnect(beat, 4, 1)
        super().__init__({"plan": In(conv_layout()), "start": In(1), "done": Out(self.conv.done.signature),
                          "m_axi": Out(AxiSignature(40, 8 * beat, 5))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.conv, m.submodules.bus = self.conv, self.bus
        m.d.comb += [self.conv.plan.eq(self.plan), self.conv.start.eq(self.start)]
        for k, port in enumerate(self.conv.mem_read):
            connect(m, port, self.bus.read[k])
        connect(m, self.conv.mem_write, self.bus.write[0])
        connect(m, self.bus.axi, flipped(self.m_axi))
        connect(m, self.conv.done, flipped(self.done))
        return m


def test_cycles_against_the_bound():
    """A 3x3 convolution of 64 channels reaches 95 % of the array, from AXI memory to AXI memory, weights streamed."""
    conv = random_conv(np.random.default_rng(6), size=(6, 8, 64), outputs=16, kernel=(3, 3), out=(6, 8), tile=(1, 8),
                       pad=(1, 1), pad_value=-3)
    dut, beat = OnAxi(SMALL, 8), 8
    memory = AxiSlave(dut.m_axi, beat, latency=20, seed=7)
    for address, content in conv.image(SMALL, beat, AT).items():
        for k in range(0, len(content), beat):
            memory.memory[address + k] = int.from_bytes(content[k:k + beat], "little")
    done = StreamSink(dut.done)

    async def start(ctx):
        await begin(ctx, dut, conv, SMALL, beat)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)

    idle = 3  # cycles before the start
    cycles = simulate(dut, [start, done, memory.process], until=lambda: bool(done.items), max_cycles=20_000) - idle
    raw = pack_tensor(conv.expected(), beat)
    got = b"".join(memory.memory[AT["y"] + k].to_bytes(beat, "little") for k in range(0, len(raw), beat))
    assert got == raw
    assert memory.idle
    macs = 6 * 8 * 16 * 9 * 64
    bound = max(macs // (SMALL.rows * SMALL.columns), len(memory.r_busy), len(memory.w_busy))
    assert bound == macs // 32
    assert bound / cycles >= 0.95, f"{cycles} cycles, {bound} at best"
