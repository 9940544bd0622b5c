"""Reads beats of a page buffer into a stream."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo

__all__ = ["BeatReader"]


class BeatReader(wiring.Component):
    """Client of a buffer's read port: ``addr`` in, the beat of ``data_bits`` on ``o`` in order.

    ``read`` goes to the port; ``latency`` cycles (1 or more) after its transfer the beat is on ``data`` with ``arrives``.
    It is asked for only where there is room for it here; one beat per cycle.
    """

    def __init__(self, data_bits: int, addr_bits: int, latency: int = 1):
        if latency < 1:
            raise ValueError(f"latency = {latency}: must be at least 1")
        self.ahead = latency + 2  # covers the way there, the FIFO and the way of the credit back
        super().__init__({
            "addr": In(stream.Signature(addr_bits)),
            "read": Out(stream.Signature(addr_bits)),
            "arrives": In(1),
            "data": In(data_bits),
            "o": Out(stream.Signature(data_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = StreamFifo(len(self.data), self.ahead)
        credit = Signal(bits_for(self.ahead), init=self.ahead)
        m.d.comb += [
            self.read.valid.eq(self.addr.valid & (credit != 0)), self.read.payload.eq(self.addr.payload),
            self.addr.ready.eq(self.read.ready & (credit != 0)),
            fifo.i.valid.eq(self.arrives), fifo.i.payload.eq(self.data),
            self.o.valid.eq(fifo.o.valid), self.o.payload.eq(fifo.o.payload), fifo.o.ready.eq(self.o.ready)]
        m.d.sync += credit.eq(credit - (self.read.valid & self.read.ready) + (self.o.valid & self.o.ready))
        return m
