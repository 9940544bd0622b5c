"""A register in a stream's way, where a path from one block through the next would be too long for a cycle."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RegisterSlice"]

READY = ("through", "half", "full")


class RegisterSlice(wiring.Component):
    """Registers before ``o.valid`` and ``o.payload``, latency 1 (AXI calls such a block a register slice). ``ready``:

    * "through": ``i.ready`` follows ``o.ready`` in the same cycle; one transfer per cycle;
    * "half": ``i.ready`` only while the slice is empty; one transfer in two cycles, for no more logic;
    * "full": a register before ``i.ready`` too, a second place for what comes while ``o`` waits, and a multiplexer; one
      transfer per cycle.
    """

    def __init__(self, shape, ready: str = "full"):
        if ready not in READY:
            raise ValueError(f"ready = {ready!r}: must be one of {READY}")
        self.ready = ready
        super().__init__({
            "i": In(stream.Signature(shape)),
            #: A cycle later.
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        given = Value.cast(i.payload)
        held = Signal(len(given), reset_less=True)
        free = Signal()
        m.d.comb += [
            free.eq(~o.valid | o.ready),
            Value.cast(o.payload).eq(held),
        ]
        if self.ready != "full":
            m.d.comb += i.ready.eq(free if self.ready == "through" else ~o.valid)
            with m.If(o.ready):
                m.d.sync += o.valid.eq(0)
            with m.If(i.ready):
                m.d.sync += [
                    o.valid.eq(i.valid),
                    held.eq(given),
                ]
            return m
        spare, kept = Signal(), Signal(len(given), reset_less=True)  # what came while ``o`` waited
        m.d.comb += i.ready.eq(~spare)
        with m.If(~spare):
            m.d.sync += kept.eq(given)
        with m.If(free):
            m.d.sync += [
                o.valid.eq(i.valid | spare),
                held.eq(Mux(spare, kept, given)),
            ]
        m.d.sync += spare.eq((spare | i.valid) & ~free)  # not by a reset pin, whose set-up time is longer
        return m
