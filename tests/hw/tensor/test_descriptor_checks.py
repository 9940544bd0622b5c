"""Descriptors as the gateware reads and judges them, against contract.tensor."""

import random
import struct
import zlib

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import FIELDS, Descriptor, DescriptorError, Op, TensorConfig, check, pack, unpack
from nearflash_hw.primitives.memport import MemReadSignature
from nearflash_hw.tensor.checker import DescriptorChecker
from nearflash_hw.tensor.descriptor_reader import DescriptorReader
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import MemoryModel

CONFIG = TensorConfig(rows=8, columns=16, pixels=64, lanes=8, input_bytes=8192, weight_bytes=8192, max_channels=256,
                      max_keys=128, dram_bytes=1 << 20, operators=("conv", "depthwise", "add", "layernorm", "attention"))
ALL = TensorConfig(rows=4, columns=16, pixels=16, lanes=2, input_bytes=8192, weight_bytes=8192, max_channels=64,
                   dram_bytes=1 << 16)
PROGRAM = 0x4000
SIZES = {"in_height": 6, "in_width": 5, "in_channels": 24, "out_channels": 24, "out_height": 6, "out_width": 5}
KERNEL = {"kernel_h": 3, "kernel_w": 2, "stride": 1, "pad_top": 1, "pad_left": 1, "tile_rows": 3, "tile_columns": 5}
ENDS = {"low": -127, "high": 100}
DESCRIPTORS = {
    Op.PROGRAM: {"x": 0x1000, "y": 0x2000, "input_bytes": 64, "output_bytes": 640, "count": 3},
    Op.CONV: SIZES | KERNEL | ENDS | {"x": 0x1000, "y": 0x2000, "r": 0x5000, "weights": 0x8000, "entries": 0x7000,
                                     "table": 0xFFC0 - 0xC0, "residual": 1, "lookup": 1, "r16": 1, "out_channels": 6,
                                     "shuffle": 2, "group_blocks": 1, "pad_value": -127, "residual_mult": 9, "frac": 14},
    Op.DEPTHWISE: SIZES | KERNEL | ENDS | {"x": 0x1000, "y": 0x2000, "weights": 0x8000, "entries": 0x7000,
                                          "low": -32767, "high": 32767, "y16": 1, "offset": -(1 << 24)},
    Op.POOL: SIZES | ENDS | {"x": 0x1000, "y": 0x3000, "kernel_h": 2, "kernel_w": 2, "stride": 2, "out_height": 3,
                             "in_width": 10, "x16": 1, "mult": 65535, "shift": 62},
    Op.ADD: SIZES | ENDS | {"x": 0x1000, "y": 0x2000, "r": 0x3000, "residual": 1, "x16": 1},
    Op.LAYERNORM: SIZES | ENDS | {"x": 0x1000, "y": 0x2000, "entries": 0x3000, "x16": 1, "eps_high": 1},
    Op.ATTENTION: SIZES | ENDS | {"x": 0x1000, "y": 0x2000, "r": 0x3000, "v": 0x4000, "heads": 3, "head_dim": 16, "keys": 64,
                                  "in_channels": 48, "out_channels": 48, "value_mult": 1 << 15},
}


class Judge(wiring.Component):
    """Reader and checker, one after the other: a fault of the first ends it."""

    def __init__(self, config, beat):
        self.reader, self.checker = DescriptorReader(beat), DescriptorChecker(config, beat)
        super().__init__({"start": In(1), "number": In(16), "mem_read": Out(MemReadSignature(beat)), "done": Out(1),
                          "error": Out(1), "fault": Out(1), "word": Out(5), "raw": Out(1024)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader, m.submodules.checker = reader, checker = self.reader, self.checker
        connect(m, reader.mem_read, flipped(self.mem_read))
        good = reader.done & ~reader.fault & ~reader.error
        m.d.comb += [
            reader.start.eq(self.start), reader.address.eq(PROGRAM), reader.number.eq(self.number),
            checker.put.eq(reader.put), checker.op.eq(reader.descriptor.op), checker.program.eq(PROGRAM),
            checker.start.eq(good), self.done.eq((reader.done & ~good) | checker.done), self.error.eq(reader.error),
            self.fault.eq(reader.fault | (checker.done & checker.fault)), self.raw.eq(reader.descriptor.as_value())]
        with m.If(checker.done):
            m.d.comb += self.word.eq(checker.word)
        with m.Else():
            m.d.comb += self.word.eq(reader.word)
        return m


def judged(raws, config=CONFIG, beat=16, stall=0.0, fail=lambda addr: False):
    """For each (number, bytes): (error, fault, word if there is a fault), and what it left in ``descriptor``."""
    dut, memory = reused(Judge, config, beat), MemoryModel(beat, latency=6, stall=stall, seed=1, fail=fail)
    verdicts = []

    async def process(ctx):
        for number, raw in raws:
            memory.write(PROGRAM, raw)
            ctx.set(dut.number, number)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            *_, error, fault, word, got = await ctx.tick().sample(dut.error, dut.fault, dut.word, dut.raw).until(dut.done)
            verdicts.append((error, fault, word * fault, got))

    simulate(dut, [process, memory.read_port(dut.mem_read)], until=lambda: len(verdicts) == len(raws),
             max_cycles=1500 * len(raws))
    assert memory.pending == 0
    return verdicts


def expected(number, raw, config=CONFIG, beat=16):
    try:
        check(unpack(raw, number), config, beat, PROGRAM)
    except DescriptorError as e:
        return 0, 1, e.word
    return 0, 0, 0


def sealed(words):
    body = struct.pack("<31I", *words[:31])
    return body + struct.pack("<I", zlib.crc32(body))


def valid(op, **changes):
    number = 0 if op == Op.PROGRAM else 7
    return number, pack(Descriptor(op, **(DESCRIPTORS[op] | {"number": number} | changes)))


def mutated(rng, op):
    """A descriptor with something else in a field, or anywhere, or broken on the way."""
    number, raw = valid(op)
    words = list(struct.unpack("<32I", raw))
    kind = rng.random()
    if kind < 0.05:
        broken = bytearray(raw)
        broken[rng.randrange(128)] ^= 1 << rng.randrange(8)
        return number, bytes(broken)
    if kind < 0.1:
        words[rng.randrange(31)] ^= 1 << rng.randrange(32)
        return number, sealed(words)
    f = rng.choice([f for f in FIELDS if f.name in DESCRIPTORS[op]] if kind < 0.9 else FIELDS)
    mask = (1 << f.bits) - 1
    old = words[f.word] >> f.lsb & mask
    new = rng.choice([0, 1, old + 1, old - 1, 2 * old, old + 64, old - 64, old + 4096, mask, mask >> 1, (mask >> 1) + 1,
                      f.high, f.high + 1, rng.getrandbits(f.bits)]) & mask
    words[f.word] = words[f.word] & ~(mask << f.lsb) | new << f.lsb
    return number, sealed(words)


END = CONFIG.dram_bytes
POINT = {"kernel_h": 1, "kernel_w": 1, "pad_top": 0, "pad_left": 0, "tile_rows": 8, "tile_columns": 8, "x": 0x40000}
WIDE = {"tile_rows": 1, "tile_columns": 1, "group_blocks": 0, "x": 0x40000}
LARGE = {"kernel_h": 8, "kernel_w": 8, "tile_rows": 1, "tile_columns": 1}
ONE_HEAD = {"heads": 1, "head_dim": 48}
#: Changes on either side of a rule's limit, and the word at fault (0: none). y takes 0x780 bytes of CONV's.
EDGES = {
    Op.PROGRAM: [({"input_bytes": 0}, 24), ({"input_bytes": 96}, 24), ({"output_bytes": 0}, 25), ({"output_bytes": 32}, 25),
                 ({"count": 0}, 26), ({"x": END - 64}, 0), ({"x": END}, 2), ({"x": 0x1020}, 2), ({"y": END - 640}, 0),
                 ({"y": END - 576}, 5)],
    Op.CONV: [({"in_height": 0}, 9), ({"in_width": 0}, 9), ({"out_channels": 0}, 10), ({"out_width": 0}, 11),
              ({"in_channels": 256, **WIDE}, 0), ({"in_channels": 257, **WIDE}, 10), ({"out_channels": 64, "r": 0x40000}, 0),
              ({"out_channels": 65, "r": 0x40000}, 10), ({"out_height": 32767, "in_height": 65535}, 5),
              ({"out_height": 32768, "in_height": 65535}, 11), ({"out_width": 32767, "in_width": 65535}, 5),
              ({"out_width": 32768, "in_width": 65535}, 11), ({"kernel_h": 0}, 12), ({"kernel_w": 0}, 12),
              ({"stride": 0}, 12),
              ({"pad_top": 2}, 0), ({"pad_top": 3}, 12), ({"pad_left": 2}, 12), ({"out_height": 7}, 0),
              ({"out_height": 8}, 11), ({"out_width": 6}, 0), ({"out_width": 7}, 11), ({"low": -128}, 13),
              ({"high": 127}, 0),
              ({"high": 128}, 13), ({"low": 100}, 0), ({"low": 101}, 13), ({"y16": 1}, 1),
              ({"y16": 1, "lookup": 0, "low": -32767, "high": 32767}, 0), ({"tile_rows": 0}, 22), ({"tile_columns": 0}, 22),
              ({"tile_rows": 8, "tile_columns": 8, "in_channels": 16}, 0),
              ({"tile_rows": 8, "tile_columns": 9, "in_channels": 16}, 22), ({**POINT, "in_channels": 64}, 0),
              ({**POINT, "in_channels": 65}, 22), ({**POINT, "in_channels": 64, "group_blocks": 8}, 0),
              ({**POINT, "in_channels": 64, "group_blocks": 9}, 23), ({"y": END - 0x780}, 0), ({"y": END - 0x740}, 5),
              ({"y": 0x2020}, 5), ({"x": 0x1C40}, 0), ({"x": 0x1C80}, 2), ({"x": 0x2780}, 0), ({"x": 0x2740}, 2),
              ({"x": END - 960}, 0), ({"x": END - 896}, 2), ({"r": 0x2780}, 0), ({"r": 0x2740}, 3),
              ({"r": 0x2740, "residual": 0}, 0), ({"weights": 0x800}, 0), ({"weights": 0x840}, 6), ({"entries": 0x1E80}, 0),
              ({"entries": 0x1EC0}, 7), ({"table": END - 256}, 0), ({"table": END - 192}, 8), ({"table": 0x1F00}, 0),
              ({"table": 0x1F40}, 8), ({"table": 0x1F40, "lookup": 0}, 0)],
    Op.DEPTHWISE: [({"out_channels": 23}, 10), ({**POINT, "in_channels": 64, "out_channels": 64}, 0),
                   ({**POINT, "in_channels": 65, "out_channels": 65}, 22), ({"weights": 0x1F40}, 0),
                   ({"weights": 0x1F80}, 6),
                   ({"entries": 0x1E80}, 0), ({"entries": 0x1EC0}, 7), ({"pad_top": 3}, 12),
                   ({**LARGE, "in_channels": 32, "out_channels": 32}, 0),
                   ({**LARGE, "in_channels": 33, "out_channels": 33}, 12)],
    Op.POOL: [({}, 0)],  # see test_verdicts_of_another_engine
    Op.ADD: [({"out_height": 5}, 11), ({"out_width": 6}, 11), ({"out_channels": 25}, 10), ({"x": 0x1A40}, 0),
             ({"x": 0x1A80}, 2), ({"r": 0x23C0}, 0), ({"r": 0x2380}, 3), ({"r": 0x2380, "residual": 0}, 0)],
    Op.LAYERNORM: [({"eps_high": 0}, 19), ({"eps_high": 0, "eps_low": 1}, 0), ({"out_width": 4}, 11),
                   ({"entries": 0x1E80}, 0), ({"entries": 0x1EC0}, 7)],
    Op.ATTENTION: [({"heads": 4}, 16), ({"head_dim": 17}, 16), ({"keys": 0}, 16), ({"keys": 128, "v": 0x8000}, 0),
                   ({"keys": 129, "v": 0x8000}, 16), ({"value_mult": 32767}, 18), ({"r": 0x1400}, 0), ({"r": 0x1440}, 3),
                   ({"v": 0x1400}, 0), ({"v": 0x1440}, 4), ({"v": END - 0xC00}, 0), ({"v": END - 0xBC0}, 4),
                   ({"heads": 2, "head_dim": 24}, 16),
                   ({"heads": 1, "head_dim": 64, "in_channels": 64, "out_channels": 64}, 0),
                   ({"heads": 1, "head_dim": 80, "in_channels": 80, "out_channels": 80}, 16), ({**ONE_HEAD, "keys": 80}, 0),
                   ({**ONE_HEAD, "keys": 81}, 16)],
}


@pytest.mark.parametrize("op", Op)
def test_verdicts_are_the_contracts(op):
    """On either side of every rule's limit, and with any one thing changed: the same word at fault, or none."""
    rng = random.Random(int(op))
    edges = [(valid(op, **changes), word) for changes, word in EDGES[op]]
    raws = [*(raw for raw, _ in edges), *(mutated(rng, op) for _ in range(12)), valid(op)]
    want = [expected(*r) for r in raws]
    if op == Op.POOL:
        assert want[-1] == (0, 1, 0), "CONFIG has no POOL"
    else:
        assert [w[2] for w in want[:len(edges)]] == [word for _, word in edges]
    got = judged(raws, stall=0.1 * (op % 2))
    assert [g[:3] for g in got] == want
    assert all(g[3] == int.from_bytes(raw, "little") for g, (_, raw) in zip(got, raws, strict=True))


def test_verdicts_of_another_engine():
    """Beats of 8 bytes, all operators, a small region: products beyond it must not wrap."""
    rng = random.Random(99)
    huge = {"in_height": 65535, "in_width": 65535, "out_height": 65535, "out_width": 65535}
    raws = [valid(op) for op in Op if op != Op.ATTENTION] + [mutated(rng, op) for op in Op for _ in range(2)]
    raws += [valid(Op.POOL, **changes) for changes in ({"kernel_w": 1}, {"stride": 1}, {"out_height": 2}, {"in_width": 9})]
    raws += [valid(op, **huge) for op in (Op.ADD, Op.LAYERNORM, Op.CONV)]
    # words of columns are longer than beats: what a tile takes on chip is not what it takes in memory
    halo = {"kernel_h": 8, "kernel_w": 8, "stride": 8, "tile_columns": 4, "in_channels": 8, "out_channels": 8,
            "in_height": 48, "in_width": 40, "x": 0xC000}
    raws += [valid(Op.DEPTHWISE, tile_rows=rows, **halo) for rows in (1, 2)]
    raws += [valid(Op.PROGRAM, count=383), valid(Op.PROGRAM, count=384)]
    want = [expected(*r, config=ALL, beat=8) for r in raws]
    assert [w[2] for w in want[-4:]] == [0, 22, 0, 26]
    got = judged(raws, ALL, 8)
    assert [g[:3] for g in got] == want


def test_a_failed_read_is_no_fault():
    failing = [PROGRAM + 32]
    got = judged([valid(Op.ADD), valid(Op.ADD)], fail=lambda addr: addr in failing and bool(failing.pop()))
    assert [g[:2] for g in got] == [(1, 0), (0, 0)]
