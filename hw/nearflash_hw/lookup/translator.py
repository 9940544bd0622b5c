"""Lookups to flash reads: row to logical block to physical page, with a path tag for the way back."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..controller.map_cache import translations
from ..interfaces import FlashOp, Layouts, bits_for
from ..model import observe
from ..primitives.fifo import StreamFifo
from ..primitives.register_slice import RegisterSlice
from .layouts import CARRIED, LookupLayouts
from .row_locator import RowLocator
from .tags import TagPool

__all__ = ["Translator"]

TRANSLATIONS = 16  # requests to the FTL in flight, if it doesn't take more


class Translator(wiring.Component):
    """The paper's EV translator: up to one lookup per cycle with map-cache hits, in order up to the channels' queues.

    A row that can't be read leaves as ``poison``: BAD_TABLE (parameters contradict each other), ROW_UNMAPPED or
    UNRECOVERED_READ (map not readable). With a row cache, it is asked for each row that can (``look``), and what it
    ``found`` it reads (``cached``) in place of a channel.
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
            **(self._of_cache(LookupLayouts.of(config)) if config.row_cache.lines else {}),
        })

    @staticmethod
    def _of_cache(lay: LookupLayouts) -> dict:
        return {
            #: With a row cache: is the row there?
            "look": Out(stream.Signature(lay.placed)),
            #: In the same order.
            "found": In(stream.Signature(lay.found)),
            #: Rows that are, with their tags.
            "cached": Out(stream.Signature(lay.cached_read)),
        }

    def elaborate(self, platform):
        m = Module()
        c, f, lo = self.config, self.config.flash, Layouts.of(self.config)
        m.submodules.locator = locator = RowLocator(c)
        most = max(TRANSLATIONS, translations(c)[0])
        m.submodules.waiting = waiting = StreamFifo(LookupLayouts.of(c).located, most)
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
        m.d.sync += room.eq((waiting.level < most - 1) | ((waiting.level == most - 1) & ~waiting.i.valid))
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
        if c.row_cache.lines:
            found = self.found.payload
            item, column, beats = found.placed, found.placed.row.column, found.placed.row.beats
            offered, of_flash = self.found.valid, self.found.valid & ~found.hit
            place, taken = item.row.ppn, self.look.valid & self.look.ready
        else:
            item, column, beats = head.payload, head.payload.column, head.payload.beats
            offered = of_flash = known & good
            place, taken = answer.ppn, issue
        m.d.comb += [
            known.eq(head.valid & (rsp.valid | ~head.payload.ok)),
            good.eq(head.payload.ok & answer.mapped & ~answer.error),
            poison.valid.eq(known & ~good),
            poison.payload.slot.eq(head.payload.slot),
            poison.payload.table.eq(head.payload.table),
            poison.payload.status.eq(Mux(~head.payload.ok, Status.BAD_TABLE,
                                         Mux(answer.error, Status.UNRECOVERED_READ, Status.ROW_UNMAPPED))),
            head.ready.eq(taken | (poison.valid & poison.ready)),
            rsp.ready.eq(head.ready & head.payload.ok),
        ]
        ppn = Signal(lo.ppn)
        m.d.comb += ppn.eq(place)
        # A channel of one die takes a command every cycle and has room for as many as there are tags.
        queues = [RegisterSlice(lo.flash_command, "through") if f.channel_planes == 1
                  else StreamFifo(lo.flash_command, min(16, c.lookup.tags)) for _ in range(f.channels)]
        for k, q in enumerate(queues):
            m.submodules[f"queue{k}"] = q
            connect(m, q.o, flipped(self.flash_cmd[k]))
            p = q.i.payload
            m.d.comb += [
                q.i.valid.eq(of_flash & tags.take.valid & (ppn.channel == k)),
                p.op.eq(FlashOp.READ),
                p.die.eq(ppn.die),
                p.block.eq(ppn.block),
                p.page.eq(ppn.page),
                p.column.eq(column),
                p.beats.eq(beats),
                p.tag.eq(tags.take.payload),
            ]
        ready = Array(q.i.ready for q in queues)[ppn.channel] if f.channels > 1 else queues[0].i.ready
        entry = self.tag_write.entry
        if c.row_cache.lines:
            m.submodules.cached = cached = RegisterSlice(LookupLayouts.of(c).cached_read, "through")
            connect(m, cached.o, flipped(self.cached))
            look = self.look.payload
            m.d.comb += [
                self.look.valid.eq(known & good),
                *(getattr(look, k).eq(getattr(head.payload, k)) for k in CARRIED),
                look.row.ppn.eq(answer.ppn),
                look.row.column.eq(head.payload.column),
                look.row.beats.eq(head.payload.beats),
                self.found.ready.eq(issue),
                cached.i.valid.eq(offered & found.hit & tags.take.valid),
                cached.i.payload.line.eq(found.line),
                cached.i.payload.beats.eq(beats),
                cached.i.payload.tag.eq(tags.take.payload),
                entry.row.eq(item.row),
                entry.keep.eq(found.keep),
            ]
            ready = Mux(found.hit, cached.i.ready, ready)
        m.d.comb += [
            issue.eq(offered & tags.take.valid & ready),
            tags.take.ready.eq(offered & ready),
            self.tag_write_valid.eq(issue),
            self.tag_write.tag.eq(tags.take.payload),
            *(getattr(entry, k).eq(getattr(item, k)) for k in CARRIED),
        ]
        observe(m, platform, "lookup", issue=issue, tag=self.tag_write.tag, slot=entry.slot, table=entry.table)
        return m
