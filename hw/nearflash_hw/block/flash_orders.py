"""Leads flash commands to their channels."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import FlashOp
from ..primitives.arbiter import StreamArbiter
from .layouts import BlockLayouts

__all__ = ["FlashOrders"]


class FlashOrders(wiring.Component):
    """Each order on ``order[k]`` as a command on ``flash_cmd`` of its channel; the two take turns. READs move the page
    without its out-of-band area. Combinational."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: Of both halves.
            "order": In(stream.Signature(lay.order)).array(2),
            #: Of each channel.
            "flash_cmd": Out(stream.Signature(lay.flash_command)).array(config.flash.channels),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, BlockLayouts.of(self.config)
        m.submodules.arbiter = arbiter = StreamArbiter(lay.order, 2)
        for k in range(2):
            connect(m, flipped(self.order[k]), arbiter.i[k])
        order = arbiter.o.payload
        ppn = Signal(lay.ppn)
        m.d.comb += ppn.eq(order.ppn)
        for k, out in enumerate(self.flash_cmd):
            p = out.payload
            mine = ppn.channel == k
            m.d.comb += [
                out.valid.eq(arbiter.o.valid & mine),
                p.op.eq(order.op),
                p.tag.eq(order.tag),
                p.die.eq(ppn.die),
                p.page.eq(ppn.page),
                p.block.eq(ppn.block),
                p.beats.eq(Mux(order.op == FlashOp.READ, c.page_beats, c.raw_page_beats)),
            ]
            with m.If(mine):
                m.d.comb += arbiter.o.ready.eq(out.ready)
        return m
