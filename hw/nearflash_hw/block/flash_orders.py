"""Leads flash commands to their channels."""

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..interfaces import FlashOp
from ..primitives.arbiter import StreamArbiter
from .layouts import BlockLayouts

__all__ = ["FlashOrders"]


class FlashOrders(wiring.Component):
    """Each order on ``order[k]`` as a command on ``flash_cmd`` of its channel; the two take turns. READs move the page
    without its out-of-band area. Combinational."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts(config)
        super().__init__({
            "order": In(stream.Signature(lay.order)).array(2),
            "flash_cmd": Out(stream.Signature(lay.flash_command)).array(config.flash.channels),
        })

    def elaborate(self, platform):
        m = Module()
        c, f = self.config, self.config.flash
        m.submodules.arbiter = arbiter = StreamArbiter(BlockLayouts(c).order, 2)
        for k in range(2):
            connect(m, flipped(self.order[k]), arbiter.i[k])
        order = arbiter.o.payload
        at_die, at_page = log2(f.channels), log2(f.channels) + log2(f.dies)
        at_block = at_page + log2(f.pages)
        for k, out in enumerate(self.flash_cmd):
            p = out.payload
            mine = order.ppn[:at_die] == k
            m.d.comb += [
                out.valid.eq(arbiter.o.valid & mine), p.op.eq(order.op), p.tag.eq(order.tag),
                p.die.eq(order.ppn[at_die:at_page]), p.page.eq(order.ppn[at_page:at_block]),
                p.block.eq(order.ppn[at_block : f.ppn_bits]),
                p.beats.eq(Mux(order.op == FlashOp.READ, c.page_beats, c.raw_page_beats))]
            with m.If(mine):
                m.d.comb += arbiter.o.ready.eq(out.ready)
        return m
