"""Notices a bus that has stopped answering."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .countdown import Countdown

__all__ = ["BusWatch"]


class BusWatch(wiring.Component):
    """``silent``, until reset: the other side has ``owed`` something for ``cycles`` on end without any transfer
    (``progress``). Nothing is owed in the first cycle after a reset."""

    def __init__(self, cycles: int):
        if cycles < 1:
            raise ValueError(f"cycles = {cycles}: must be at least 1")
        self.cycles = cycles
        super().__init__({
            #: The other side has something to answer or to take.
            "owed": In(1),
            #: Something was transferred.
            "progress": In(1),
            #: Until reset.
            "silent": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.left = left = Countdown(self.cycles.bit_length())
        m.d.comb += [
            left.value.eq(self.cycles),
            left.run.eq(1),
            left.load.eq(~self.owed | self.progress),
        ]
        with m.If(self.owed & ~self.progress & ~left.busy):
            m.d.sync += self.silent.eq(1)
        return m
