"""A tensor engine alone, compiled with Verilator, with a memory of its own: no NVMe, no flash, nothing else on the bus."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import CommandError, DeviceConfig, DeviceTimeout, Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES, unpack
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.tensor.engine import OUTSTANDING_READS, OUTSTANDING_WRITES, TensorEngine
from nearflash_hw.verilog import to_verilog
from nearflash_sim.verilated.build import cached_verilog

from .library import compiled

__all__ = ["EngineFabric"]

HARNESS = Path(__file__).with_name("tensor_tile.cpp")
FIELDS = ("begin", "start", "end", "steps", "unfed", "full", "reads", "writes")
SEEN = ("started", "ended", "array_step", "array_unfed", "array_full")
DRAM_LATENCY = 30  # cycles, as the simulated device's
PROGRESS = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)


class _Top(wiring.Component):
    """An engine on one AXI4 port. ``start``: runs the program at ``offset``; ``done`` pulses with the outcome. The input
    lies in memory already, the output stays there."""

    def __init__(self, config: DeviceConfig):
        self.engine = TensorEngine(config, base=0)
        self.bus = MemInterconnect(config.beat_bytes, len(self.engine.mem_read), 1, config.bus, reach_bits=32,
                                   outstanding_writes=OUTSTANDING_WRITES, outstanding_reads=OUTSTANDING_READS,
                                   dense_writes=(0,))
        super().__init__({
            "start": In(1), "ready": Out(1), "offset": In(32), "input_bytes": In(32), "done": Out(1), "status": Out(11),
            "dw0": Out(16), "dw1": Out(5), **dict.fromkeys(SEEN, Out(1)),
            "m_axi": Out(AxiSignature(config.bus.address_bits, 8 * config.beat_bytes, config.bus.id_bits))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.bus = engine, bus = self.engine, self.bus
        for k, port in enumerate(engine.mem_read):
            connect(m, port, bus.read[k])
        connect(m, engine.mem_write, bus.write[0])
        connect(m, bus.axi, flipped(self.m_axi))
        outcome = engine.o.payload
        m.d.comb += [
            engine.i.valid.eq(self.start), self.ready.eq(engine.i.ready), engine.i.payload.program.eq(self.offset),
            engine.i.payload.input_bytes.eq(self.input_bytes), engine.o.ready.eq(1), self.done.eq(engine.o.valid),
            self.status.eq(outcome.status), self.dw0.eq(outcome.dw0), self.dw1.eq(outcome.dw1), engine.transfer.ready.eq(1),
            *(getattr(self, name).eq(getattr(engine, name)) for name in SEEN)]
        with m.If(engine.transfer.valid):
            m.d.sync += engine.transferred.valid.eq(1)
        with m.Elif(engine.transferred.ready):
            m.d.sync += engine.transferred.valid.eq(0)
        return m


class EngineFabric:
    """The tensor engine of ``config`` as a fabric of :func:`nearflash.offload.offload`. Every :meth:`run` adds to
    ``measured`` an array of a row a descriptor, its columns FIELDS: cycles from the program's begin, and counts.

    ``told(cycle, descriptors)`` hears how far it is. A program that takes more than ``max_cycles`` raises
    :class:`~nearflash.contract.DeviceTimeout`.
    """

    def __init__(self, config: DeviceConfig, max_cycles: int, told: Callable[[int, int], None] = lambda cycle, done: None):
        self.config, self.max_cycles, self._told = config, max_cycles, PROGRESS(told)
        self.measured: list[np.ndarray] = []
        self.memory = np.zeros(config.tensor.dram_bytes, np.uint8)
        alike = replace(config, name="", mlp=replace(config.mlp, primitive="inferred"))  # instances have no content here
        verilog = cached_verilog(f"tensor engine alone {alike!r}",
                                 lambda: to_verilog(_Top(alike), "tensor_engine", model=True, gated=False))
        self._library = ctypes.CDLL(str(compiled(verilog, "tensor_engine", HARNESS, "-O2")))
        self._library.tile_create.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._library.tile_create())

    def close(self) -> None:
        self._library.tile_destroy(self._handle)

    def load(self, offset: int, content: bytes) -> None:
        self.memory[offset : offset + len(content)] = np.frombuffer(content, np.uint8)

    def run(self, program: int, content: bytes) -> bytes:
        header = unpack(self.memory[program : program + DESCRIPTOR_BYTES].tobytes(), 0)
        self.load(header["x"], content)
        found = np.zeros((header["count"], len(FIELDS)), np.uint64)
        count, outcome = ctypes.c_uint64(), (ctypes.c_uint32 * 3)()
        ended = self._library.tile_run(
            self._handle, ctypes.c_void_p(self.memory.ctypes.data), ctypes.c_uint64(self.memory.size),
            ctypes.c_uint32(program), ctypes.c_uint32(len(content)), ctypes.c_uint64(DRAM_LATENCY),
            ctypes.c_uint64(self.max_cycles), ctypes.c_void_p(found.ctypes.data), ctypes.c_uint64(len(found)),
            ctypes.byref(count), outcome, self._told)
        if ended == -1:
            raise DeviceTimeout(f"no outcome within {self.max_cycles} cycles, after {count.value} of {len(found)} "
                                "descriptors")
        if ended:
            raise RuntimeError(f"an access outside the region of {self.memory.size} bytes, in descriptor {count.value + 1}")
        if outcome[0]:
            raise CommandError("run", Status(outcome[0]), outcome[1], outcome[2])
        self.measured.append(found.astype(np.int64))
        return self.memory[header["y"] : header["y"] + header["output_bytes"]].tobytes()
