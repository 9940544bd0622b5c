"""TENSOR_LOAD and TENSOR_RUN between host memory and the engine's region."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped
from nearflash.contract import Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES
from nearflash_hw.primitives.memport import MemReadSignature, MemWriteSignature
from nearflash_hw.tensor.commands import TensorCommands
from nearflash_hw.tensor.engine import TensorEngine
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel
from test_tensor_engine import BEAT, CONFIG, ENGINE, PROGRAM, Run, chain, inputs, modelled

BASE, PAGE, OUT = CONFIG.layout.tensor, 4096, 0x80000
REACH = 1 << CONFIG.bus.address_bits


class Room(wiring.Component):
    """The engine and its commands."""

    def __init__(self):
        self.engine, self.commands = TensorEngine(CONFIG), TensorCommands(CONFIG)
        members = self.commands.signature.members
        super().__init__({
            "cmd": members["cmd"], "completion": members["completion"],
            "host_read": Out(MemReadSignature(BEAT)).array(2), "host_write": Out(MemWriteSignature(BEAT)),
            "dram_read": Out(MemReadSignature(BEAT)).array(len(self.engine.mem_read) + 1),
            "dram_write": Out(MemWriteSignature(BEAT)).array(2)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine, m.submodules.commands = engine, commands = self.engine, self.commands
        for source, sink in ((commands.run, engine.i), (engine.o, commands.outcome), (engine.transfer, commands.transfer),
                             (commands.transferred, engine.transferred), (flipped(self.cmd), commands.cmd),
                             (commands.completion, flipped(self.completion))):
            connect(m, source, sink)
        for own, port in zip((commands.list_read, commands.data_read, commands.host_write, commands.dram_read,
                              *engine.mem_read, commands.dram_write, engine.mem_write),
                             (*self.host_read, self.host_write, *self.dram_read, *self.dram_write), strict=True):
            connect(m, own, flipped(port))
        return m


def command(cid, load=0, prp1=0, words=0, offset=0, out=OUT):
    return {"load": load, "qid": 0 if load else 1, "cid": cid, "prp1": prp1, "prp2": 0, "words": words, "offset": offset,
            "out_addr": out}


def test_load_run_and_refusals():
    """A program loaded piece by piece and run; what is refused has a status and no effect; then it runs again."""
    image, header = chain()
    dut = reused(Room)
    host, dram = MemoryModel(BEAT, latency=25, stall=0.1, seed=1), MemoryModel(BEAT, latency=9, stall=0.1, seed=2,
                                                                              fail=lambda a: a == BASE + 0xF000)
    content, commands, want = inputs(header, 1), [], []
    place = PAGE

    def ask(status, dw0=0, dw1=0, **fields):
        commands.append(command(len(commands), **fields))
        want.append({"qid": commands[-1]["qid"], "cid": commands[-1]["cid"], "status": int(status), "dw0": dw0, "dw1": dw1})

    def load(address, raw):
        nonlocal place
        padded = raw + bytes(-len(raw) % 64)
        host.write(place + 64, padded)
        ask(0, load=1, prp1=place + 64, words=len(padded) // 4, offset=address)
        place += PAGE

    for address, raw in image.items():
        load(address, raw)
    host.write(place, content)
    good = {"prp1": place, "words": len(content) // 4, "offset": PROGRAM}
    ask(0, **good)
    span, size = Status.BAD_TENSOR_SPAN, ENGINE.dram_bytes
    for dw0, fields in ((12, {"words": 16, "offset": 8}), (10, {}), (10, {"words": 8}), (10, {"words": 16, "offset": size}),
                        (10, {"words": 32, "offset": size - 64}), (10, {"words": 1 << 31})):
        ask(span, dw0, load=1, prp1=place, **fields)
    ask(Status.INVALID_PRP_OFFSET, load=1, prp1=place + 4, words=16, offset=size - 64)
    ask(Status.DATA_TRANSFER_ERROR, load=1, prp1=REACH, words=16, offset=size - 64)
    ask(Status.WRITE_FAULT, load=1, prp1=place, words=16, offset=0xF000)
    ask(span, 11, **good | {"offset": PROGRAM + 4})
    ask(span, 10, **good | {"words": good["words"] - 1})
    ask(span, 10, **good | {"words": good["words"] | 1 << 30})
    ask(Status.INVALID_PRP_OFFSET, **good, out=OUT + 4)
    ask(Status.DATA_TRANSFER_ERROR, **good, out=REACH - 64)
    ask(Status.DATA_TRANSFER_ERROR, **good, out=REACH)
    ask(Status.INVALID_PRP_OFFSET, **good | {"prp1": place + 4})
    broken = bytearray(image[PROGRAM])
    broken[DESCRIPTOR_BYTES + 4] ^= 1
    load(PROGRAM, bytes(broken))
    ask(Status.BAD_DESCRIPTOR, 1, 31, **good)
    load(PROGRAM, image[PROGRAM])
    ask(0, **good, out=OUT + 0x1000)
    before = dict(host.bytes)
    source, sink = StreamSource(dut.cmd, commands, 0.2, 3), StreamSink(dut.completion, 0.2, 4)
    ports = [*(host.read_port(p) for p in dut.host_read), host.write_port(dut.host_write),
             *(dram.read_port(p) for p in dut.dram_read), *(dram.write_port(p) for p in dut.dram_write)]
    simulate(dut, [source, sink, *ports], until=lambda: len(sink.items) == len(want), max_cycles=40_000)
    assert sink.items == want
    assert host.pending == dram.pending == 0
    assert source.drained
    _, (expected,), _ = modelled(image, [Run(content)])
    for out in (OUT, OUT + 0x1000):
        assert host.read(out, len(expected)) == expected
        before |= {out + k: b for k, b in enumerate(expected)}
    assert host.bytes == before, "host memory beyond the outputs"
    assert not [a for a in dram.bytes if not BASE <= a < BASE + size]
