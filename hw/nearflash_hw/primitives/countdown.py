"""A timer for waits of many cycles."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..model import elapsed

__all__ = ["Countdown"]


class Countdown(wiring.Component):
    """``busy`` for ``value`` cycles in which ``run`` is high, from the cycle after ``load``.

    The one place where a device waits for a long time in which nothing else happens, so it's kept apart from its user: a
    compiled simulation passes such a wait in one step (:mod:`nearflash_hw.model`).
    """

    model_clock = "free"

    def __init__(self, bits: int):
        super().__init__({
            #: Begin with ``value``.
            "load": In(1),
            #: In cycles.
            "value": In(bits),
            #: 0: time stands still.
            "run": In(1),
            #: Something is left.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        remaining = Signal.like(self.value, name="remaining")
        m.d.comb += self.busy.eq(remaining != 0)
        with m.If(self.load):
            m.d.sync += remaining.eq(self.value)
        with m.Elif(self.run & self.busy):
            m.d.sync += remaining.eq(remaining - elapsed(platform))
        return m
