"""Maps pages once they are programmed."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import Status

from ..controller.map_cache import ERROR
from ..primitives.arbiter import StreamArbiter
from .layouts import BlockLayouts
from .programmer import next_slot

__all__ = ["Mapper"]


class Mapper(wiring.Component):
    """Takes pages in the order of ``programmed``; for each waits until ``flash_done`` told of its slot's PROGRAM (tag
    {slot, 1}; {slot, 0}: its ERASE, which ends before), changes the map (``update``), and ``freed`` pulses. A page that was
    not programmed or mapped raises ``fault`` WRITE_FAULT instead of being mapped; a ``dropped`` one is only freed.
    ``begin``: the slots start anew."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: Pulses: a command begins, all slots anew.
            "begin": In(1),
            #: Pages, in order.
            "programmed": In(stream.Signature(lay.programmed)),
            #: Of each channel.
            "flash_done": In(stream.Signature(lay.flash_done)).array(config.flash.channels),
            #: Changes of the map.
            "update": Out(stream.Signature(lay.map_update)),
            "update_done": In(stream.Signature(ERROR)),
            #: Pulses: the oldest slot is free.
            "freed": Out(1),
            #: Not 0 for a cycle: a page was not programmed or not mapped.
            "fault": Out(11),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, BlockLayouts.of(self.config)
        m.submodules.arbiter = arbiter = StreamArbiter(lay.flash_done, c.flash.channels)
        for k in range(c.flash.channels):
            connect(m, flipped(self.flash_done[k]), arbiter.i[k])
        done, over = Signal(lay.flash_done), Signal()
        m.d.comb += arbiter.o.ready.eq(1)
        m.d.sync += [
            done.eq(arbiter.o.payload),
            over.eq(arbiter.o.valid),
        ]
        slots = range(c.host.page_slots)
        settled = Array(Signal(name=f"settled{k}") for k in slots)  # by slot
        bad = Array(Signal(name=f"bad{k}") for k in slots)
        tail = Signal(lay.page_slot_bits)
        for k in slots:
            with m.If(over & (done.tag[1 : 1 + len(tail)] == k)):
                m.d.sync += [
                    settled[k].eq(done.tag[0]),
                    bad[k].eq(bad[k] | done.error),
                ]

        page = self.programmed
        m.d.comb += [
            page.ready.eq(self.freed),
            self.update.payload.lpn.eq(page.payload.lpn),
            self.update.payload.ppn.eq(page.payload.ppn),
            self.update.payload.mapped.eq(1),
        ]
        with m.If(self.freed):
            m.d.sync += [
                settled[tail].eq(0),
                bad[tail].eq(0),
                tail.eq(next_slot(c, tail)),
            ]
        with m.FSM():
            with m.State("PAGE"):
                with m.If(page.valid & page.payload.dropped):
                    m.d.comb += self.freed.eq(1)
                with m.Elif(page.valid & settled[tail]):
                    with m.If(bad[tail]):
                        m.d.comb += [
                            self.fault.eq(Status.WRITE_FAULT),
                            self.freed.eq(1),
                        ]
                    with m.Else():
                        m.next = "UPDATE"
            with m.State("UPDATE"):
                m.d.comb += self.update.valid.eq(1)
                with m.If(self.update.ready):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.update_done.ready.eq(1)
                with m.If(self.update_done.valid):
                    m.d.comb += self.freed.eq(1)
                    with m.If(self.update_done.payload.error):
                        m.d.comb += self.fault.eq(Status.WRITE_FAULT)
                    m.next = "PAGE"
        with m.If(self.begin):
            m.d.sync += tail.eq(0)
        return m
