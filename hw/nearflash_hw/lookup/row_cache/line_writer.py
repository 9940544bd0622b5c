"""Rows that pass on their way from flash, to lines of the row cache."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ...interfaces import bits_for
from ...primitives.fifo import StreamFifo
from ...primitives.memport import MemWriteSignature
from ..layouts import LookupLayouts

__all__ = ["LineWriter"]

ROWS = 4  # that passed and are not yet written


class LineWriter(wiring.Component):
    """Takes the rows that may be kept as they pass (``passing``, which never waits), asks for a line for each, writes it
    there and, once memory says it has it, publishes it. A row for which there is no room is ``dropped``.

    Not kept: a row with an error, one of all ones (an erased page's, which may be programmed), and while ``closed`` any. A
    line is written to when all hits that were found before its tag was taken away have ended.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = LookupLayouts.of(config)
        super().__init__({
            #: A beat of a row goes to pooling.
            "valid": In(1),
            "beat": In(lay.vector_beat),
            #: What its row's tag stands for.
            "entry": In(lay.tag_entry),
            #: Level: keep nothing.
            "closed": In(1),
            #: A row that was found has not ended yet.
            "hits": In(bits_for(config.lookup.tags + 1)),
            #: Pulses: one has.
            "hit_ended": In(1),
            #: A row that flash gave,
            "admit": Out(stream.Signature(lay.row_place)),
            #: its line,
            "verdict": In(stream.Signature(data.StructLayout({"take": 1, "line": lay.line_bits}))),
            #: and it is there.
            "publish": Out(stream.Signature(lay.kept_row)),
            #: The DRAM.
            "mem": Out(MemWriteSignature(config.beat_bytes)),
            #: Nothing is waiting or being written.
            "idle": Out(1),
            #: Pulses: a row that may be kept has passed,
            "passed": Out(1),
            #: there was no room for one.
            "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, LookupLayouts.of(self.config)
        m.submodules.beats = beats = StreamFifo(data.StructLayout({"data": lay.data_bits, "last": 1}), ROWS * lay.line_beats)
        m.submodules.rows = rows = StreamFifo(data.StructLayout({"row": lay.row_place, "keep": 1}), ROWS + 1)
        held = Signal(bits_for(ROWS))  # rows in ``beats``: ``rows`` has another while its last beat is on its way

        # -- as they pass
        b, entry = self.beat, self.entry
        begins, takes, taking = Signal(), Signal(), Signal()
        ones, bad = Signal(init=1), Signal()  # of the beats before
        all_ones, failed = Signal(), Signal()
        left = Signal()
        m.d.comb += [
            begins.eq(self.valid & b.first & entry.keep & ~self.closed),
            takes.eq(begins & (held != ROWS)),
            self.dropped.eq(begins & (held == ROWS)),
            self.passed.eq(self.valid & b.last & entry.keep),
            all_ones.eq(ones & b.data.all()),
            failed.eq(bad | b.error),
            beats.i.valid.eq(self.valid & (takes | taking)),
            beats.i.payload.data.eq(b.data),
            beats.i.payload.last.eq(b.last),
            rows.i.valid.eq(beats.i.valid & b.last),
            rows.i.payload.row.eq(entry.row),
            rows.i.payload.keep.eq(~all_ones & ~failed),
            left.eq(beats.o.valid & beats.o.ready & beats.o.payload.last),
        ]
        with m.If(self.valid):
            m.d.sync += [
                taking.eq((takes | taking) & ~b.last),
                ones.eq(all_ones | b.last),
                bad.eq(failed & ~b.last),
            ]
        m.d.sync += held.eq(held + takes - left)

        # -- to their lines, one at a time
        older = Signal.like(self.hits)  # hits found before the line was taken that have not ended
        line = Signal(lay.line_bits, reset_less=True)
        req, words, done = self.mem.req, self.mem.data, self.mem.done
        m.d.comb += [
            self.admit.payload.eq(rows.o.payload.row),
            self.publish.payload.row.eq(rows.o.payload.row),
            self.publish.payload.line.eq(line),
            req.payload.addr.eq(c.layout.row_cache + Cat(Const(0, log2(c.row_cache.line_bytes)), line)),
            req.payload.beats.eq(rows.o.payload.row.beats),
            words.payload.data.eq(beats.o.payload.data),
            words.payload.strb.eq(-1),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(rows.o.valid):
                    m.next = "DISCARD"
                    with m.If(rows.o.payload.keep & ~self.closed):
                        m.next = "ADMIT"
            with m.State("ADMIT"):
                m.d.comb += self.admit.valid.eq(1)
                with m.If(self.admit.ready):
                    m.next = "VERDICT"
            with m.State("VERDICT"):
                m.d.comb += self.verdict.ready.eq(1)
                m.d.sync += [
                    line.eq(self.verdict.payload.line),
                    older.eq(self.hits - self.hit_ended),
                ]
                with m.If(self.verdict.valid):
                    m.next = "DISCARD"
                    with m.If(self.verdict.payload.take):
                        m.next = "HITS"
            with m.State("HITS"):
                m.d.sync += older.eq(older - self.hit_ended)
                with m.If(older == 0):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += req.valid.eq(1)
                with m.If(req.ready):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [
                    words.valid.eq(beats.o.valid),
                    beats.o.ready.eq(words.ready),
                ]
                with m.If(left):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += done.ready.eq(1)
                with m.If(done.valid):
                    m.next = "PUBLISH"
                    with m.If(done.payload.error | self.closed):
                        m.d.comb += rows.o.ready.eq(1)
                        m.next = "IDLE"
            with m.State("PUBLISH"):
                m.d.comb += [
                    self.publish.valid.eq(1),
                    rows.o.ready.eq(self.publish.ready),
                ]
                with m.If(self.publish.ready):
                    m.next = "IDLE"
            with m.State("DISCARD"):
                m.d.comb += [
                    beats.o.ready.eq(1),
                    rows.o.ready.eq(left),
                ]
                with m.If(left):
                    m.next = "IDLE"
        m.d.comb += self.idle.eq(fsm.ongoing("IDLE") & (held == 0) & ~rows.o.valid)
        return m
