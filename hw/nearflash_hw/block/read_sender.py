"""Sends pages that were read to the host."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.config import log2

from ..interfaces import index_bits
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemWriteSignature
from ..primitives.register_slice import RegisterSlice
from .beat_reader import BeatReader
from .layouts import BlockLayouts
from .piece_table import PieceTable

__all__ = ["ReadSender"]

OUTSTANDING = 4  # requests that the host has not answered


class ReadSender(wiring.Component):
    """Sends the pages of two streams (``page``) to the pieces of host memory that ``place`` gave for their tags, and
    retires them (``retire``) when the host has them; a ``bad`` page at once, with UNRECOVERED_READ. ``free`` gives the slot
    back as its last beat is read from the buffer (``read_*``: the beat is on ``read_data`` a cycle after ``read_en``).

    A page waits a cycle; then one beat per cycle, 3 cycles between pieces.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: From :class:`.ReadIssue` and :class:`.Landing`.
            "page": In(stream.Signature(lay.page)).array(2),
            #: The host memory of a page.
            "place": In(stream.Signature(lay.place, always_ready=True)),
            #: The read buffer's port; {beat, slot}, the beat a cycle later.
            "read_en": Out(1),
            "read_addr": Out(log2(config.page_beats) + lay.read_slot_bits),
            "read_data": In(lay.data_bits),
            #: A slot was read.
            "free": Out(stream.Signature(lay.read_slot_bits, always_ready=True)),
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
            #: The host has the page.
            "retire": Out(stream.Signature(lay.retired)),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, BlockLayouts.of(self.config)
        m.submodules.table = table = PieceTable(c)
        connect(m, flipped(self.place), table.place)
        m.submodules.arbiter = arbiter = StreamArbiter(lay.page, 2)
        for k in range(2):
            connect(m, flipped(self.page[k]), arbiter.i[k])
        m.submodules.next = next_ = RegisterSlice(lay.page, "through")
        connect(m, arbiter.o, next_.i)
        page, row = next_.o, table.row
        item = page.payload

        # -- what the host's answers are about, in order; a page that is not sent waits for none
        note_layout = data.StructLayout({"tag": lay.read_bits, "command": lay.read_bits, "page_end": 1, "bad": 1})
        m.submodules.notes = notes = StreamFifo(note_layout, OUTSTANDING)
        note, out, done = notes.i.payload, self.retire.payload, self.host_write.done
        noted = notes.o.payload
        failed, answered = Signal(), Signal()
        m.d.comb += [
            note.tag.eq(item.tag),
            note.command.eq(row.command),
            note.page_end.eq(row.page_end | item.bad),
            note.bad.eq(item.bad),
            answered.eq(notes.o.valid & (done.valid | noted.bad)),
            self.retire.valid.eq(answered & noted.page_end),
            notes.o.ready.eq(answered & (self.retire.ready | ~noted.page_end)),
            done.ready.eq(notes.o.ready & ~noted.bad),
            out.tag.eq(noted.tag),
            out.command.eq(noted.command),
            out.count.eq(1),
            out.status.eq(Mux(noted.bad, Status.UNRECOVERED_READ,
                              Mux(failed | done.payload.error, Status.DATA_TRANSFER_ERROR, 0))),
        ]
        with m.If(notes.o.valid & notes.o.ready):
            m.d.sync += failed.eq(~noted.page_end & (failed | done.payload.error))

        # -- beats
        m.submodules.reader = reader = BeatReader(lay.data_bits, len(self.read_addr) + 1, 2)
        beat = Signal(log2(c.page_beats))
        arrives, blank = Signal(2), Signal()
        value = Signal(lay.data_bits)
        m.d.comb += [
            reader.addr.payload.eq(Cat(beat, item.slot, item.blank)),
            reader.read.ready.eq(1),
            self.read_en.eq(reader.read.valid),
            self.read_addr.eq(reader.read.payload),
            reader.arrives.eq(arrives[1]),
            reader.data.eq(value),
            self.host_write.data.valid.eq(reader.o.valid),
            self.host_write.data.payload.data.eq(reader.o.payload),
            self.host_write.data.payload.strb.eq(-1),
            reader.o.ready.eq(self.host_write.data.ready),
        ]
        # A blank page's beats are read like any other, whatever is there, and cleared in a register's own reset.
        m.d.sync += [
            arrives.eq(Cat(reader.read.valid, arrives[0])),
            blank.eq(reader.read.payload[-1]),
            value.eq(self.read_data),
        ]
        with m.If(blank):
            m.d.sync += value.eq(0)

        # -- pieces
        index = Signal(index_bits(1 << len(table.index)))
        left, final, ends = Signal.like(row.beats), Signal(), Signal()
        req = self.host_write.req
        m.d.comb += [
            table.tag.eq(item.tag),
            table.index.eq(index),
            req.payload.addr.eq(row.addr),
            req.payload.beats.eq(row.beats),
            page.ready.eq(ends),
            self.free.valid.eq(ends & ~item.blank),
            self.free.payload.eq(item.slot),
        ]
        with m.FSM():
            with m.State("PIECE"):
                m.d.sync += [
                    left.eq(row.beats),
                    final.eq(row.beats == 1),
                ]
                with m.If(page.valid & notes.i.ready):
                    with m.If(item.bad):
                        m.d.comb += [
                            notes.i.valid.eq(1),
                            ends.eq(1),
                        ]
                    with m.Else():
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [
                    req.valid.eq(1),
                    notes.i.valid.eq(req.ready),
                ]
                with m.If(req.ready):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += reader.addr.valid.eq(1)
                with m.If(reader.addr.ready):
                    m.d.sync += [
                        left.eq(left - 1),
                        final.eq(left == 2),
                        beat.eq(beat + 1),
                    ]
                    with m.If(final):
                        m.d.comb += ends.eq(row.page_end)
                        m.d.sync += index.eq(Mux(row.page_end, 0, index + 1))
                        m.next = "PIECE"
        return m
