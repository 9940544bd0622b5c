"""The free list of path tags."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for
from ..primitives.pool import Pool

__all__ = ["TagPool"]


class TagPool(wiring.Component):
    """lookup.tags tags: ``take`` hands one out, ``give`` takes one back (never blocks). ``used``: tags out."""

    def __init__(self, config: DeviceConfig):
        self.tags = config.lookup.tags
        tag = Layouts.of(config).tag_bits
        super().__init__({
            #: A free tag.
            "take": Out(stream.Signature(tag)),
            #: Back; never blocks.
            "give": In(stream.Signature(tag, always_ready=True)),
            #: Tags that are out.
            "used": Out(bits_for(self.tags)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.free = free = Pool(self.tags)
        m.d.comb += [
            self.take.valid.eq(free.o.valid),
            self.take.payload.eq(free.o.payload),
            free.o.ready.eq(self.take.ready),
            free.i.valid.eq(self.give.valid),
            free.i.payload.eq(self.give.payload),
            self.used.eq(self.tags - free.level),
        ]
        return m
