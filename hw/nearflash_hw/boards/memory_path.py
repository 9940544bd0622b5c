"""From a device's memory port to the processing system's. Only wiring."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.processing import ProcessingSystem

from ..primitives.axi import Axi3Signature, AxiSignature
from .narrower import Narrower
from .reset_guard import ResetGuard
from .to_axi3 import ToAxi3

__all__ = ["MemoryPath"]


class MemoryPath(wiring.Component):
    """Bursts ``i`` of a device of ``config`` on a memory port ``o`` of ``ps``: behind a
    :class:`~.reset_guard.ResetGuard` (``closed``, ``busy``), as narrow as the port and in its version of AXI. The port's
    addresses and IDs may be wider than the device's.

    Latency 0, a read 1 cycle where the port is narrower; the port moves a beat in every cycle.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig, ps: ProcessingSystem):
        self.config, self.ps = config, ps
        b, bits = config.bus, ps.slave_bits(config.beat_bytes)
        self.bus = (Axi3Signature if ps.axi == 3 else AxiSignature)(ps.reach_bits, bits, ps.slave_id_bits)
        super().__init__({
            #: The device's port.
            "i": In(AxiSignature(b.address_bits, config.beat_bytes * 8, b.id_bits)),
            #: The processing system's.
            "o": Out(self.bus),
            #: No burst begins.
            "closed": In(1),
            #: A burst is under way.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        b, wide, narrow = self.config.bus, self.config.beat_bytes * 8, self.ps.slave_bits(self.config.beat_bytes)
        m.submodules.guard = guard = ResetGuard(b.address_bits, wide, b.id_bits)
        connect(m, flipped(self.i), guard.i)
        m.d.comb += [
            guard.closed.eq(self.closed),
            self.busy.eq(guard.busy),
        ]
        last = guard.o
        if narrow < wide:
            m.submodules.narrower = narrower = Narrower(b.address_bits, wide, narrow, b.id_bits)
            connect(m, last, narrower.i)
            last = narrower.o
        if self.ps.axi == 3:
            m.submodules.to_axi3 = to_axi3 = ToAxi3(b.address_bits, narrow, b.id_bits)
            connect(m, last, to_axi3.i)
            last = to_axi3.o
        for name, member in last.signature.members.items():
            inner, outer = getattr(last, name), getattr(self.o, name)
            m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        return m
