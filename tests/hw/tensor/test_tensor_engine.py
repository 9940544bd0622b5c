"""Programs through the engine's sequencer and units, against the integer model of the whole region."""

from collections import Counter
from dataclasses import replace

import numpy as np
from amaranth.hdl import Fragment
from conv_plans import random_conv
from nearflash.contract import CommandError, DeviceConfig, Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES, OPERATORS, Descriptor, Op, TensorConfig, pack_program, pixel_bytes
from nearflash.reference.tensor import TensorModel
from nearflash_hw.engine.kernel import Kernel
from nearflash_hw.tensor.array import PixelArray
from nearflash_hw.tensor.engine import TensorEngine
from nearflash_hw.tensor.epilogue import Epilogue
from nearflash_hw.tensor.planner import ConvPlanner
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

ENGINE = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, input_bytes=8192, weight_bytes=8192, max_channels=64,
                      dram_bytes=1 << 16, operators=("conv",))
CONFIG = replace(DeviceConfig.preset("tiny"), tensor=ENGINE)
BEAT, BASE = CONFIG.beat_bytes, 0x12345000
PROGRAM, INPUT, MIDDLE, SMALL, OUTPUT, CONSTANTS = 0x40, 0x1000, 0x2000, 0x3000, 0x4000, 0x8000


def chain(seed=1):
    """The image of a program: 3x3 with a table; 3x3 stride 2; 1x1 shuffled back, the first's output added, 16 bits."""
    rng = np.random.default_rng(seed)
    convs = [
        random_conv(rng, size=(2, 4, 5), outputs=6, kernel=(3, 3), out=(2, 4), tile=(1, 4), pad=(1, 1), pad_value=-3,
                    lookup=True),
        random_conv(rng, size=(2, 4, 6), outputs=9, kernel=(3, 3), out=(1, 2), tile=(1, 2), pad=(1, 1), stride=2, group=1),
        random_conv(rng, size=(1, 2, 9), outputs=4 * 6, kernel=(1, 1), out=(1, 2), tile=(1, 1), shuffle=2, wide=True,
                    residual=False, group=2)]
    places = [(INPUT, MIDDLE), (MIDDLE, SMALL), (SMALL, OUTPUT)]
    content, descriptors, at = {}, [], CONSTANTS
    for conv, (x, y) in zip(convs, places, strict=True):
        where = {"x": x, "y": y, "r": MIDDLE, "weights": at, "entries": at + 0x800, "table": at + 0xC00}
        image = conv.image(ENGINE, BEAT, where)
        content |= {a: raw for a, raw in image.items() if a >= CONSTANTS}
        if conv.table is not None:
            content[where["table"]] = conv.table.tobytes()
        descriptors.append(conv.descriptor(where))
        at += 0x1000
    header = Descriptor(Op.PROGRAM, x=INPUT, input_bytes=2 * 4 * pixel_bytes(5, 0, BEAT), y=OUTPUT,
                        output_bytes=2 * 4 * pixel_bytes(6, 1, BEAT))
    content[PROGRAM] = pack_program(header, descriptors)
    return content, header


class Run:
    """A command: ``changes`` to memory before it (address: bytes), what TENSOR_RUN says, and the status with which the host
    can't give its input."""

    def __init__(self, content, program=PROGRAM, changes=None, refused=0):
        self.content, self.program, self.changes, self.refused = content, program, changes or {}, refused


def run(image, runs, stall=0.0, fail=lambda addr: False):
    """For each run its outcome and the output that the host got."""
    dut = reused(make_engine)
    memory = MemoryModel(BEAT, latency=9, stall=stall, seed=2, fail=fail)
    for address, raw in image.items():
        memory.write(BASE + address, raw)
    source, sink = StreamSource(dut.i, []), StreamSink(dut.o, stall, 4)
    transfers, answers, outputs = StreamSink(dut.transfer, stall, 5), StreamSource(dut.transferred, []), []

    async def host(ctx):
        for n, r in enumerate(runs):
            for address, raw in r.changes.items():
                memory.write(BASE + address, raw)
            outputs.append(None)
            source.items.append({"program": r.program, "input_bytes": len(r.content)})
            seen = len(transfers.items)
            while len(sink.items) == n:
                await ctx.tick()
                if len(transfers.items) > seen:
                    t = transfers.items[seen]
                    if t["output"]:
                        outputs[-1] = memory.read(BASE + t["address"], t["bytes"])
                    else:
                        memory.write(BASE + t["address"], r.content)
                    answers.items.append(0 if t["output"] else int(r.refused))
                    seen += 1

    ports = [memory.read_port(p) for p in dut.mem_read] + [memory.write_port(dut.mem_write)]
    simulate(dut, [source, sink, transfers, answers, host, *ports], until=lambda: len(sink.items) == len(runs),
             max_cycles=12_000 * len(runs))
    assert memory.pending == 0
    assert answers.drained
    return sink.items, outputs, memory


def make_engine():
    return TensorEngine(CONFIG, base=BASE)


def modelled(image, runs):
    """The same from the integer model, and its memory."""
    model, outcomes, outputs = TensorModel(CONFIG), [], []
    for address, raw in image.items():
        model.load(address, raw + bytes(-len(raw) % 64))
    for r in runs:
        for address, raw in r.changes.items():
            model.memory[address:address + len(raw)] = np.frombuffer(raw, np.uint8)
        try:
            outputs.append(model.run(r.program, r.content))
            outcomes.append({"status": 0, "dw0": 0, "dw1": 0})
        except CommandError as e:
            outputs.append(None)
            outcomes.append({"status": int(e.status), "dw0": e.dw0, "dw1": e.dw1})
    return outcomes, outputs, model.memory.tobytes()


def inputs(header, seed):
    return np.random.default_rng(seed).integers(-127, 128, header["input_bytes"]).astype(np.int8).tobytes()


def test_a_chain_of_convolutions():
    """Twice, with other inputs; afterwards the whole region is the model's."""
    image, header = chain()
    runs = [Run(inputs(header, 1)), Run(inputs(header, 2))]
    outcomes, outputs, memory = run(image, runs, stall=0.3)
    want, expected, region = modelled(image, runs)
    assert outcomes == want == [{"status": 0, "dw0": 0, "dw1": 0}] * len(runs)
    assert outputs == expected
    assert len(set(outputs)) == len(runs)
    assert memory.read(BASE, len(region)) == region
    assert not [a for a in memory.bytes if not BASE <= a < BASE + len(region)]


def test_what_is_wrong_is_named_and_the_next_program_runs():
    image, header = chain()
    good = image[PROGRAM]
    descriptors = [good[k:k + DESCRIPTOR_BYTES] for k in range(0, len(good), DESCRIPTOR_BYTES)]
    flipped = bytearray(descriptors[2])
    flipped[40] ^= 4
    whole = inputs(header, 3)
    restore = {PROGRAM: good}
    runs = [
        Run(whole, program=PROGRAM + 8), Run(whole, program=ENGINE.dram_bytes - 64), Run(whole[:-64], changes=restore),
        Run(whole, changes={PROGRAM + 2 * DESCRIPTOR_BYTES: bytes(flipped)}),
        Run(whole, changes={PROGRAM + DESCRIPTOR_BYTES: descriptors[2]}),  # not the first
        Run(whole, changes={PROGRAM: pack_program(Descriptor(Op.PROGRAM, **{
            k: header[k] for k in ("x", "y", "input_bytes", "output_bytes")} | {"x": 8}), [])}),
        Run(whole, changes=restore)]
    outcomes, outputs, _ = run(image, runs)
    want, expected, _ = modelled(image, runs)
    assert outcomes == want
    assert [o["status"] for o in outcomes] == [Status.BAD_TENSOR_SPAN] * 3 + [
        Status.BAD_DESCRIPTOR, Status.BAD_DESCRIPTOR, Status.BAD_DESCRIPTOR, 0]
    assert (outcomes[3]["dw0"], outcomes[3]["dw1"]) == (2, 31)
    assert outputs == expected


def test_a_failed_transfer_ends_the_program_alone():
    """Of a descriptor, of weights, of a table."""
    image, header = chain()
    failing = [PROGRAM + 2 * DESCRIPTOR_BYTES, CONSTANTS + 0x1000, CONSTANTS + 0xC00]
    fails = {BASE + a for a in failing}

    def fail(addr):
        return addr in fails and not fails.remove(addr)

    whole = inputs(header, 4)
    runs = [Run(whole), Run(whole), Run(whole), Run(whole, refused=Status.DATA_TRANSFER_ERROR), Run(whole)]
    outcomes, outputs, _ = run(image, runs, fail=fail)
    _, expected, _ = modelled(image, [Run(whole)])
    # the table of the first is loaded before it runs, the second's descriptor read before its weights
    assert [(o["status"], o["dw0"]) for o in outcomes] == [
        (Status.UNRECOVERED_READ, 1), (Status.UNRECOVERED_READ, 2), (Status.UNRECOVERED_READ, 2),
        (Status.DATA_TRANSFER_ERROR, 0), (0, 0)]
    assert not fails
    assert outputs == [None] * 4 + expected


def test_one_array_and_one_epilogue_serve_all_operators(monkeypatch):
    built = Counter()

    def counted(part):
        elaborate = part.elaborate

        def count(self, platform):
            built[part] += 1
            return elaborate(self, platform)

        monkeypatch.setattr(part, "elaborate", count)

    parts = (PixelArray, Kernel, Epilogue, ConvPlanner)
    for part in parts:
        counted(part)
    whole = replace(ENGINE, depthwise=8, max_keys=64, operators=OPERATORS)
    Fragment.get(TensorEngine(replace(CONFIG, tensor=whole), base=BASE), None)
    assert built == dict.fromkeys(parts, 1)
