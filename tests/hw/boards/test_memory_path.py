"""The way to a memory port: a device's DMA keeps the port busy, and all of the shell between them loses nothing."""

from dataclasses import replace

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.shell import board_config
from nearflash_hw.boards.memory_path import MemoryPath
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import MemReadSignature, MemWriteSignature
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import AxiSlave
from nearflash_sim.models.axi_slave import pattern

TINY = DeviceConfig.preset("tiny")
LATENCY = 40  # cycles, at most, of the memory


class Dma(wiring.Component):
    """Two readers and two writers, as a device has them, at a board's port."""

    def __init__(self, board: str, beat_bytes: int):
        ps, lanes = find_board(board).ps, max(2, beat_bytes // 4)
        config = replace(TINY, beat_bytes=beat_bytes, lookup=replace(TINY.lookup, lanes=lanes),
                         clock_mhz=100.0 if ps.axi == 3 else 187.5)
        self.config, self.ps = board_config(config, find_board(board)), ps
        self.path = MemoryPath(self.config, ps)
        super().__init__({
            "read": In(MemReadSignature(beat_bytes)).array(2), "write": In(MemWriteSignature(beat_bytes)).array(2),
            "o": Out(self.path.bus)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dma = dma = MemInterconnect(self.config.beat_bytes, 2, 2, self.config.bus)
        m.submodules.path = self.path
        for k in range(2):
            connect(m, flipped(self.read[k]), dma.read[k])
            connect(m, flipped(self.write[k]), dma.write[k])
        connect(m, dma.axi, self.path.i)
        connect(m, self.path.o, flipped(self.o))
        return m


@pytest.mark.parametrize(("board", "beat_bytes", "longest"), [
    ("pynq-z2", 8, 16), ("pynq-z2", 16, 16), ("pynq-z2", 32, 16), ("zcu104", 32, 256)])
def test_a_stream_keeps_the_port_busy(board, beat_bytes, longest):
    """In at least nine of ten cycles, both ways at once, behind a memory that takes its time."""
    dut = reused(Dma, board, beat_bytes)
    own = dut.ps.slave_bits(beat_bytes) // 8
    beats, count = 4096 // beat_bytes, 1
    memory = AxiSlave(dut.o, own, latency=LATENCY, seed=1)
    actors, reads, dones = [memory], [], []
    for k in range(2):
        requests = [{"addr": (k << 20) + 4096 * i, "beats": beats} for i in range(count)]
        words = [{"data": i, "strb": (1 << beat_bytes) - 1} for i in range(beats * count)]
        reads.append(StreamSink(dut.read[k].rsp))
        dones.append(StreamSink(dut.write[k].done))
        actors += [StreamSource(dut.read[k].req, requests), reads[-1], dones[-1],
                   StreamSource(dut.write[k].req, [{**r, "addr": r["addr"] + (2 << 20)} for r in requests]),
                   StreamSource(dut.write[k].data, words)]
    total = 2 * count * 4096 // own
    simulate(dut, actors, until=lambda: all(len(s.items) == beats * count for s in reads)
             and all(len(d.items) == count for d in dones), max_cycles=2 * total)
    for busy in (memory.r_busy, memory.w_busy):
        assert len(busy) == total
        assert len(busy) / (busy[-1] - busy[0] + 1) >= 0.9
    assert max(n for _, _, n in memory.reads + memory.writes) == min(longest, 4096 // own)
    for k, sink in enumerate(reads):
        assert [item["data"] for item in sink.items] == [
            sum(pattern(a + j, own) << 8 * j for j in range(0, beat_bytes, own))
            for a in range(k << 20, (k << 20) + 4096 * count, beat_bytes)]
    assert len(memory.memory) == total
