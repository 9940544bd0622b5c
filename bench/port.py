"""A device's DMA at a board's memory port: four streams at once through all of the shell that lies between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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

__all__ = ["BYTES", "Dma", "Stream", "busy_share", "stream"]

CLIENTS, BYTES = 2, 4096  # of reads and of writes each; of every stream
LATENCY = 40  # cycles, at most, of the memory


class Dma(wiring.Component):
    """Two readers and two writers, as a device has them, at a board's port."""

    def __init__(self, board: str, beat_bytes: int):
        target, tiny = find_board(board), DeviceConfig.preset("tiny")
        assert target.ps is not None
        config = replace(tiny, beat_bytes=beat_bytes, lookup=replace(tiny.lookup, lanes=max(2, beat_bytes // 4)),
                         clock_mhz=target.ps.clock_below(target.clock_mhz))
        self.config, self.ps = board_config(config, target), target.ps
        self.path = MemoryPath(self.config, self.ps)
        reads, writes = MemReadSignature(beat_bytes), MemWriteSignature(beat_bytes)
        super().__init__({"read": In(reads).array(CLIENTS), "write": In(writes).array(CLIENTS), "o": Out(self.path.bus)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dma = dma = MemInterconnect(self.config.beat_bytes, CLIENTS, CLIENTS, self.config.bus)
        m.submodules.path = self.path
        for k in range(CLIENTS):
            connect(m, flipped(self.read[k]), dma.read[k])
            connect(m, flipped(self.write[k]), dma.write[k])
        connect(m, dma.axi, self.path.i)
        connect(m, self.path.o, flipped(self.o))
        return m


@dataclass(frozen=True)
class Stream:
    """``memory``: what stood at the port, ``own`` bytes wide, with the cycles in which a word moved; ``words``: what each
    reader got, of ``beat_bytes``, from k MiB."""

    memory: Any
    own: int
    words: list[list[int]]


def stream(board: str, beat_bytes: int) -> Stream:
    """:data:`BYTES` by every reader and writer, all at once, on a memory that answers within :data:`LATENCY` cycles. Raises
    :class:`~nearflash_sim.bench.SimulationTimeout` where that takes twice the cycles that the port needs."""
    dut = reused(Dma, board, beat_bytes)
    own = dut.ps.slave_bits(beat_bytes) // 8
    beats = BYTES // beat_bytes
    memory = AxiSlave(dut.o, own, latency=LATENCY, seed=1)
    actors, reads, dones = [memory], [], []
    for k in range(CLIENTS):
        words = [{"data": i, "strb": (1 << beat_bytes) - 1} for i in range(beats)]
        reads.append(StreamSink(dut.read[k].rsp))
        dones.append(StreamSink(dut.write[k].done))
        actors += [StreamSource(dut.read[k].req, [{"addr": k << 20, "beats": beats}]), reads[-1], dones[-1],
                   StreamSource(dut.write[k].req, [{"addr": (k + CLIENTS) << 20, "beats": beats}]),
                   StreamSource(dut.write[k].data, words)]
    simulate(dut, actors, until=lambda: all(len(s.items) == beats for s in reads) and all(len(d.items) for d in dones),
             max_cycles=2 * CLIENTS * BYTES // own)
    return Stream(memory, own, [[item["data"] for item in sink.items] for sink in reads])


def busy_share(cycles: list[int]) -> float:
    """Of the cycles from the first word to the last, those in which one moved."""
    return len(cycles) / (cycles[-1] - cycles[0] + 1)
