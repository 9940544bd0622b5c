"""A FIFO that grants credits."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from .fifo import StreamFifo

__all__ = ["CreditFifo"]


class CreditFifo(wiring.Component):
    """The end of a pipeline that cannot stall: an input may enter the pipeline (``spend``) only while ``credit``, and so
    finds a free place when it comes out (``push``). ``idle``: nothing in the pipeline or the FIFO. Latency 1."""

    def __init__(self, shape, depth: int = 16):
        self.depth = depth
        self._shape = shape
        super().__init__({
            #: An input enters the pipeline; only while ``credit``.
            "spend": In(1),
            #: There is a place for one more.
            "credit": Out(1, init=1),
            #: It comes out, as ``payload``.
            "push": In(1),
            "payload": In(shape),
            "o": Out(stream.Signature(shape)),
            #: Nothing is in the pipeline or here.
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = StreamFifo(self._shape, self.depth)
        credits = Signal(bits_for(self.depth), init=self.depth)
        popped = Signal()
        m.d.comb += [
            fifo.i.payload.eq(self.payload),
            fifo.i.valid.eq(self.push),
            self.o.payload.eq(fifo.o.payload),
            self.o.valid.eq(fifo.o.valid),
            fifo.o.ready.eq(self.o.ready),
            popped.eq(self.o.valid & self.o.ready),
            self.idle.eq(credits == self.depth),
        ]
        # ``credit`` is ``credits != 0`` in a register: much of the pipeline's first stage waits for it.
        with m.If(self.spend & ~popped):
            m.d.sync += [
                credits.eq(credits - 1),
                self.credit.eq(credits != 1),
            ]
        with m.Elif(popped & ~self.spend):
            m.d.sync += [
                credits.eq(credits + 1),
                self.credit.eq(1),
            ]
        return m
