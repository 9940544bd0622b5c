"""Clears a memory after a reset, which reaches flip-flops alone."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

__all__ = ["ClearWalk"]


class ClearWalk(wiring.Component):
    """``at``: every address of ``bits`` bits, one a cycle, while ``busy``, from a reset on."""

    def __init__(self, bits: int):
        self.bits = bits
        super().__init__({
            #: Every address once.
            "at": Out(bits),
            #: From a reset on, for as many cycles.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        at = Signal(self.bits + 1)
        m.d.comb += [
            self.at.eq(at),
            self.busy.eq(~at[-1]),
        ]
        with m.If(self.busy):
            m.d.sync += at.eq(at + 1)
        return m
