"""Reads beats of a page buffer into a stream."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..primitives.credit_fifo import CreditFifo

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
            #: Of the beats that are wanted.
            "addr": In(stream.Signature(addr_bits)),
            #: To the buffer's read port.
            "read": Out(stream.Signature(addr_bits)),
            #: ``latency`` cycles after a transfer on ``read``: its beat.
            "arrives": In(1),
            "data": In(data_bits),
            #: The beats, in order.
            "o": Out(stream.Signature(data_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = CreditFifo(len(self.data), self.ahead)
        connect(m, fifo.o, flipped(self.o))
        m.d.comb += [
            self.read.valid.eq(self.addr.valid & fifo.credit),
            self.read.payload.eq(self.addr.payload),
            self.addr.ready.eq(self.read.ready & fifo.credit),
            fifo.spend.eq(self.read.valid & self.read.ready),
            fifo.push.eq(self.arrives),
            fifo.payload.eq(self.data),
        ]
        return m
