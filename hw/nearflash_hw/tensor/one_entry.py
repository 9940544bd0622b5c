"""The epilogue's entries of operators that have one scale for all channels."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..engine.requantize import Scale
from ..interfaces import bits_for

__all__ = ["OneEntry"]


class OneEntry(wiring.Component):
    """``start``: the epilogue's entries of a descriptor that has none: ``mult`` and ``shift`` for every lane, once."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__({
            "start": In(1),
            "mult": In(Scale()["mult"].shape),
            "shift": In(Scale()["shift"].shape),
            "o": Out(stream.Signature(Scale())),
        })

    def elaborate(self, platform):
        m = Module()
        left = Signal(bits_for(self.lanes))
        m.d.comb += [
            self.o.valid.eq(left != 0),
            self.o.payload.mult.eq(self.mult),
            self.o.payload.shift.eq(self.shift),
        ]
        with m.If(self.start):
            m.d.sync += left.eq(self.lanes)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += left.eq(left - 1)
        return m
