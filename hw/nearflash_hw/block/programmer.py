"""Gives filled pages a place in the log and orders their programs."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import Status

from ..interfaces import FlashOp
from ..primitives.fifo import StreamFifo
from .layouts import BlockLayouts

__all__ = ["Programmer", "next_slot"]


def next_slot(config: DeviceConfig, slot):
    """The slot of the write buffer's ring after ``slot``."""
    return Mux(slot == config.host.page_slots - 1, 0, slot + 1)


class Programmer(wiring.Component):
    """For every ``filled`` page, in order: takes the next page of the log (``allocate``), orders an ERASE if that asks for
    it and a PROGRAM (``order``; tag {slot, 1 for the PROGRAM}), sends its data (``feed``, which always has room) and
    announces it on ``programmed``. The pages are logical blocks ``lpn``, ``lpn`` + 1 ... of the command that ``begin``
    starts.

    After ``stop``, and when the log is ``full`` (``fault`` CAPACITY_EXCEEDED) or ``stalled`` (WRITE_FAULT), pages are
    announced as ``dropped`` instead.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: Pulses: a command begins,
            "begin": In(1),
            #: whose first logical block this is.
            "lpn": In(lay.lba_bits),
            #: It failed: no more of it.
            "stop": In(1),
            #: Pulses: a slot holds a page.
            "filled": In(1),
            #: The log.
            "allocate": In(stream.Signature(lay.log_page)),
            #: It has no more pages.
            "full": In(1),
            #: It offers none now.
            "stalled": In(1),
            #: ERASE and PROGRAM.
            "order": Out(stream.Signature(lay.order)),
            #: The page's data.
            "feed": Out(stream.Signature(lay.feed, always_ready=True)),
            #: What became of the page.
            "programmed": Out(stream.Signature(lay.programmed)),
            #: Not 0 for a cycle: there was no page for it.
            "fault": Out(11),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, BlockLayouts.of(self.config)
        slots = c.host.page_slots
        m.submodules.pages = pages = StreamFifo(lay.programmed, slots)  # it has room for every slot's
        connect(m, pages.o, flipped(self.programmed))
        offer, out = self.allocate, self.order.payload
        waiting = Signal(range(slots + 1))  # pages filled and not announced
        slot, lpn = Signal(lay.page_slot_bits), Signal(lay.lba_bits)
        ppn, ordered, erase = Signal(lay.ppn_bits), Signal.like(slot), Signal()
        announced = Signal()
        place = Signal(lay.ppn)
        m.d.comb += [
            place.eq(offer.payload.ppn),
            announced.eq(pages.i.valid),
            pages.i.payload.lpn.eq(lpn),
            pages.i.payload.ppn.eq(offer.payload.ppn),
            pages.i.payload.dropped.eq(self.stop),
            self.feed.payload.channel.eq(place.channel),
            self.feed.payload.slot.eq(slot),
            self.feed.payload.lpn.eq(lpn),
            self.feed.payload.sequence.eq(offer.payload.sequence),
            out.op.eq(Mux(erase, FlashOp.ERASE, FlashOp.PROGRAM)),
            out.ppn.eq(ppn),
            out.tag.eq(Cat(~erase, ordered)),
        ]
        m.d.sync += waiting.eq(waiting + self.filled - announced)
        with m.If(announced):
            m.d.sync += [
                slot.eq(next_slot(c, slot)),
                lpn.eq(lpn + 1),
            ]
        with m.FSM():
            with m.State("PAGE"):
                m.d.sync += [
                    ppn.eq(offer.payload.ppn),
                    erase.eq(offer.payload.erase),
                    ordered.eq(slot),
                ]
                with m.If(waiting != 0):
                    with m.If(self.stop):
                        m.d.comb += pages.i.valid.eq(1)
                    with m.Elif(offer.valid):
                        m.d.comb += [
                            offer.ready.eq(1),
                            pages.i.valid.eq(1),
                            self.feed.valid.eq(1),
                        ]
                        m.next = "ORDER"
                    with m.Elif(self.full):
                        m.d.comb += self.fault.eq(Status.CAPACITY_EXCEEDED)
                    with m.Elif(self.stalled):
                        m.d.comb += self.fault.eq(Status.WRITE_FAULT)
            with m.State("ORDER"):
                m.d.comb += self.order.valid.eq(1)
                with m.If(self.order.ready):
                    m.d.sync += erase.eq(0)
                    with m.If(~erase):
                        m.next = "PAGE"
        with m.If(self.begin):
            m.d.sync += [
                waiting.eq(0),
                slot.eq(0),
                lpn.eq(self.lpn),
            ]
        return m
