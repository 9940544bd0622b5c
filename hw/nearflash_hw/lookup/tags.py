"""The free list of path tags."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for
from ..primitives.fifo import StreamFifo

__all__ = ["TagPool"]


class TagPool(wiring.Component):
    """lookup.tags tags: ``take`` hands one out, ``give`` takes one back (never blocks). ``used``: tags out."""

    def __init__(self, config: DeviceConfig):
        self.tags = config.lookup.tags
        tag = Layouts(config).tag_bits
        super().__init__({
            "take": Out(stream.Signature(tag)),
            "give": In(stream.Signature(tag, always_ready=True)),
            "used": Out(bits_for(self.tags)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.free = free = StreamFifo(len(self.take.payload), self.tags)
        never_used = Signal(range(self.tags + 1))  # tags from here up were never handed out, so the FIFO needs no filling
        fresh = Signal()
        taken, given = self.take.valid & self.take.ready, self.give.valid
        m.d.comb += [
            fresh.eq(never_used != self.tags),
            self.take.valid.eq(fresh | free.o.valid),
            self.take.payload.eq(Mux(fresh, never_used, free.o.payload)),
            free.o.ready.eq(self.take.ready & ~fresh),
            free.i.valid.eq(given), free.i.payload.eq(self.give.payload),
        ]
        with m.If(taken & fresh):
            m.d.sync += never_used.eq(never_used + 1)
        with m.If(taken & ~given):
            m.d.sync += self.used.eq(self.used + 1)
        with m.Elif(given & ~taken):
            m.d.sync += self.used.eq(self.used - 1)
        return m
