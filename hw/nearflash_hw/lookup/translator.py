"""Lookups to flash reads: row to logical block to physical page, with a path tag for the way back."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..interfaces import FlashOp, Layouts, bits_for
from ..model import observe
from ..primitives.fifo import StreamFifo
from ..primitives.register_slice import RegisterSlice
from .layouts import LookupLayouts
from .row_locator import RowLocator
from .tags import TagPool

__all__ = ["Translator"]

TRANSLATIONS = 16  # requests to the FTL in flight


class Translator(wiring.Component):
    """The paper's EV translator: up to one lookup per cycle with map-cache hits, in order up to the channels' queues.

    A row that can't be read leaves as ``poison``: BAD_TABLE (parameters contradict each other), ROW_UNMAPPED or
    UNRECOVERED_READ (map not readable).
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lo = Layouts.of(config)
        super().__init__({
            #: Rows to read.
            "lookup": In(stream.Signature(LookupLayouts.of(config).slot_lookup)),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(lo.table_write),
            #: Where does the row's logical page lie?
            "ftl_req": Out(stream.Signature(lo.translate_request)),
            "ftl_rsp": In(stream.Signature(lo.translate_response)),
            #: Of each channel: a READ of the row's beats.
            "flash_cmd": Out(stream.Signature(lo.flash_command)).array(config.flash.channels),
            #: A row that can't be read.
            "poison": Out(stream.Signature(LookupLayouts.of(config).poison)),
            #: Pulses with what a tag stands for, in the cycle before its READ can leave.
            "tag_write_valid": Out(1),
            "tag_write": Out(data.StructLayout({"tag": lo.tag_bits, "entry": LookupLayouts.of(config).tag_entry})),
            #: Tags that come back.
            "tag_free": In(stream.Signature(lo.tag_bits, always_ready=True)),
            #: Reads in flight.
            "tags_used": Out(bits_for(config.lookup.tags)),
        })

    def elaborate(self, platform):
        m = Module()
        c, f, lo = self.config, self.config.flash, Layouts.of(self.config)
        m.submodules.locator = locator = RowLocator(c)
        m.submodules.waiting = waiting = StreamFifo(LookupLayouts.of(c).located, TRANSLATIONS)
        m.submodules.tags = tags = TagPool(c)
        m.submodules.head = slice_ = RegisterSlice(LookupLayouts.of(c).located, "through")
        connect(m, flipped(self.lookup), locator.i)
        connect(m, waiting.o, slice_.i)
        m.d.comb += [
            locator.table_valid.eq(self.table_valid),
            locator.table.eq(self.table),
            self.tags_used.eq(tags.used),
            tags.give.valid.eq(self.tag_free.valid),
            tags.give.payload.eq(self.tag_free.payload),
        ]

        # A located lookup enters the waiting FIFO and the FTL in the same cycle. That the FIFO has room is in a register (a
        # place that comes free is seen late): the map's other client waits for what this one asks.
        loc = locator.o
        room = Signal(init=1)
        most = TRANSLATIONS - 1
        m.d.sync += room.eq((waiting.level < most) | ((waiting.level == most) & ~waiting.i.valid))
        m.d.comb += [
            self.ftl_req.valid.eq(loc.valid & loc.payload.ok & room),
            self.ftl_req.payload.lpn.eq(loc.payload.lpn),
            waiting.i.valid.eq(loc.valid & room & (self.ftl_req.ready | ~loc.payload.ok)),
            waiting.i.payload.eq(loc.payload),
            loc.ready.eq(room & (self.ftl_req.ready | ~loc.payload.ok)),
        ]

        # Its answer: a flash read or poison.
        head, rsp, answer = slice_.o, self.ftl_rsp, self.ftl_rsp.payload
        known, good, issue = Signal(), Signal(), Signal()
        poison = self.poison
        m.d.comb += [
            known.eq(head.valid & (rsp.valid | ~head.payload.ok)),
            good.eq(head.payload.ok & answer.mapped & ~answer.error),
            poison.valid.eq(known & ~good),
            poison.payload.slot.eq(head.payload.slot),
            poison.payload.table.eq(head.payload.table),
            poison.payload.status.eq(Mux(~head.payload.ok, Status.BAD_TABLE,
                                         Mux(answer.error, Status.UNRECOVERED_READ, Status.ROW_UNMAPPED))),
            head.ready.eq(issue | (poison.valid & poison.ready)),
            rsp.ready.eq(head.ready & head.payload.ok),
        ]
        ppn = Signal(lo.ppn)
        m.d.comb += ppn.eq(answer.ppn)
        # A channel of one die takes a command every cycle and has room for as many as there are tags.
        queues = [RegisterSlice(lo.flash_command, "through") if f.dies == 1
                  else StreamFifo(lo.flash_command, min(16, c.lookup.tags)) for _ in range(f.channels)]
        for k, q in enumerate(queues):
            m.submodules[f"queue{k}"] = q
            connect(m, q.o, flipped(self.flash_cmd[k]))
            p = q.i.payload
            m.d.comb += [
                q.i.valid.eq(known & good & tags.take.valid & (ppn.channel == k)),
                p.op.eq(FlashOp.READ),
                p.die.eq(ppn.die),
                p.block.eq(ppn.block),
                p.page.eq(ppn.page),
                p.column.eq(head.payload.column),
                p.beats.eq(head.payload.beats),
                p.tag.eq(tags.take.payload),
            ]
        ready = Array(q.i.ready for q in queues)[ppn.channel] if f.channels > 1 else queues[0].i.ready
        entry = self.tag_write.entry
        m.d.comb += [
            issue.eq(known & good & tags.take.valid & ready),
            tags.take.ready.eq(known & good & ready),
            self.tag_write_valid.eq(issue),
            self.tag_write.tag.eq(tags.take.payload),
            *(getattr(entry, k).eq(getattr(head.payload, k)) for k, _ in LookupLayouts.of(c).tag_entry),
        ]
        observe(m, platform, "lookup", issue=issue, tag=self.tag_write.tag, slot=entry.slot, table=entry.table)
        return m
