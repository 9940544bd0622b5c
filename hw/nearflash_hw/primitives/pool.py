"""A pool of numbers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits
from .fifo import StreamFifo

__all__ = ["Pool"]


class Pool(wiring.Component):
    """The numbers 0 to ``n`` - 1: taken from ``o``, given back to ``i``, which always takes them. ``level``: how many are
    here. What is given back may be taken 2 cycles later."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"n = {n}: must be at least 1")
        self.n = n
        bits = index_bits(n)
        super().__init__({
            #: Given back.
            "i": In(stream.Signature(bits, always_ready=True)),
            #: Taken.
            "o": Out(stream.Signature(bits)),
            #: How many are here.
            "level": Out(bits_for(n), init=n),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.back = back = StreamFifo(index_bits(self.n), self.n)
        fresh = Signal(bits_for(self.n))  # numbers that were never taken come by counting: a reset has nothing to fill
        counting = Signal()
        taken = Signal()
        m.d.comb += [
            counting.eq(fresh != self.n),
            taken.eq(self.o.valid & self.o.ready),
            back.i.valid.eq(self.i.valid),
            back.i.payload.eq(self.i.payload),
            back.o.ready.eq(taken & ~counting),
            self.o.valid.eq(counting | back.o.valid),
            self.o.payload.eq(Mux(counting, fresh, back.o.payload)),
        ]
        m.d.sync += [
            fresh.eq(fresh + (taken & counting)),
            self.level.eq(self.level + self.i.valid - taken),
        ]
        return m
