"""Cuts rows into words and sends one a cycle down the accumulator pipeline."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import RowFormat

from ...interfaces import bits_for
from ...model import observe
from .accumulators import Accumulators
from .shapes import ROWS_IN_FLIGHT, Shapes

__all__ = ["Issue"]


class Issue(wiring.Component):
    """``row`` and ``beats`` in, ``word`` (with ``word_valid``, never stalled) out.

    Words of a row: its bias (INT8 only), then elements in order, ``lanes`` a word; a beat is one word of FP32, two of FP16,
    four of INT8. Whatever follows the last element is dropped. A word waits while one of the previous
    ``Accumulators.HAZARD`` - 1 cycles sent the same address (a table of very few words, looked up back to back).

    ``read``/``read_addr``: a drain asks for a word of accumulators; it is granted (``read_granted``) at once when no row is
    waiting and otherwise at most every other cycle, taking the place of a row's word.
    """

    def __init__(self, config: DeviceConfig):
        self.s = s = Shapes(config)
        super().__init__({
            #: What to do with its beats.
            "row": In(stream.Signature(s.row)),
            #: Rows in the same order.
            "beats": In(stream.Signature(s.beat)),
            #: The row's (slot, table),
            "touch_at": Out(s.slot_table_bits),
            #: as it begins,
            "touch": Out(1),
            #: and whether that held anything before.
            "touched": In(1),
            #: A drain wants the word at ``read_addr``,
            "read": In(1),
            "read_addr": In(s.addr_bits),
            #: and gets it in this cycle.
            "read_granted": Out(1),
            #: Never stalled.
            "word_valid": Out(1),
            "word": Out(s.word),
            #: A row left the retire stream.
            "retired": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        s, row, beats = self.s, self.row, self.beats
        lanes = s.lanes

        active = Signal()
        cur = Signal(s.row, reset_less=True)
        at = Signal(s.word_bits, reset_less=True)
        left, final = Signal(bits_for(s.words_per_sample), reset_less=True), Signal(reset_less=True)  # words; none is left
        bias, fresh, media = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        phase = Signal(2)
        dropping = Signal()
        done, load = Signal(), Signal()
        m.d.comb += [
            load.eq(row.valid & (~active | done)),
            row.ready.eq(load),
            self.touch_at.eq(Cat(row.p.table, row.p.slot)),
            self.touch.eq(load),
        ]

        # Rows whose last word was sent and that have not left the retire stream: that stream's queue has room for them.
        places = Signal(bits_for(ROWS_IN_FLIGHT), init=ROWS_IN_FLIGHT)

        addr = Cat(at, cur.slot)
        recent = [(Signal(name=f"recent{k}_valid"), Signal(s.addr_bits, name=f"recent{k}", reset_less=True))
                  for k in range(Accumulators.HAZARD - 1)]
        hazard = Cat(valid & (a == addr) for valid, a in recent).any()

        phases = {RowFormat.FP32: 0, RowFormat.FP16: 1, RowFormat.INT8: 3}
        beat_end = Signal()
        for fmt, end in phases.items():
            with m.If(s.is_format(cur.format, fmt)):
                m.d.comb += beat_end.eq(phase == end)
        word_last = Signal()
        granted, granted_before, send_bias, send = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            # A row cut short by a failed read ends with its beats.
            word_last.eq(final | (beats.p.last & beat_end)),
            granted.eq(self.read & ~(granted_before & active)),
            self.read_granted.eq(granted),
            send_bias.eq(active & bias & ~granted),
            send.eq(active & ~bias & beats.valid & ~dropping & ~hazard & (places != 0) & ~granted),
            done.eq(send & word_last),
            beats.ready.eq(dropping | (send & (beat_end | word_last))),
        ]
        observe(m, platform, "row", load=load, done=done, slot=row.p.slot, table=row.p.table)
        m.d.sync += granted_before.eq(granted)
        with m.If(load):
            m.d.sync += [
                active.eq(1),
                cur.eq(row.p),
                at.eq(row.p.base),
                left.eq(s.words(row.p.quads) - 1),
                final.eq(s.words(row.p.quads) == 1),
                bias.eq(s.is_format(row.p.format, RowFormat.INT8)),
                fresh.eq(~self.touched),
                media.eq(row.p.media),
            ]
        with m.Elif(done):
            m.d.sync += active.eq(0)
        with m.If(send_bias):
            m.d.sync += bias.eq(0)
        with m.If(send & ~word_last):
            m.d.sync += [
                at.eq(at + 1),
                left.eq(left - 1),
                final.eq(left == 1),
                media.eq(media | beats.p.error),
            ]
        with m.If(send):  # back to 0 with the row's last word, not as the next row comes: that waits for what ends this one
            m.d.sync += phase.eq(Mux(beat_end | word_last, 0, phase + 1))
        with m.If(done & ~beats.p.last):
            m.d.sync += dropping.eq(1)
        with m.If(dropping & beats.valid & beats.p.last):
            m.d.sync += dropping.eq(0)
        with m.If(done & ~self.retired):
            m.d.sync += places.eq(places - 1)
        with m.Elif(self.retired & ~done):
            m.d.sync += places.eq(places + 1)

        m.d.sync += [
            recent[0][0].eq(send),
            recent[0][1].eq(addr),
        ]
        for (valid, a), (next_valid, next_a) in zip(recent, recent[1:], strict=False):
            m.d.sync += [
                next_valid.eq(valid),
                next_a.eq(a),
            ]

        # The word register.
        w = Signal(s.word, reset_less=True)
        valid = Signal()
        content = beats.p.data
        bits16 = Mux(phase[0], content[16 * lanes :], content[: 16 * lanes])
        bits8 = content.word_select(phase, 8 * lanes)
        m.d.comb += [
            self.word.eq(w),
            self.word_valid.eq(valid),
        ]
        m.d.sync += [
            valid.eq(send | send_bias | granted),
            w.read.eq(granted),
            w.bias.eq(send_bias),
            w.format.eq(cur.format),
            w.fresh.eq(fresh & ~granted),
            w.last.eq(done),
            w.addr.eq(Mux(granted, self.read_addr, addr)),
            w.limit.eq(cur.limit),
            Value.cast(w.factor).eq(Mux(bias, Value.cast(cur.bias), Value.cast(cur.factor))),
            w.slot.eq(cur.slot),
            w.table.eq(cur.table),
            w.not_finite.eq(cur.not_finite),
            w.media.eq(media | beats.p.error),
        ]
        for k in range(lanes):
            raw = Signal(32, name=f"raw{k}")
            for fmt, elements in ((RowFormat.FP32, content.word_select(k, 32)), (RowFormat.FP16, bits16.word_select(k, 16)),
                                  (RowFormat.INT8, bits8.word_select(k, 8))):
                with m.If(s.is_format(cur.format, fmt)):
                    m.d.comb += raw.eq(elements)
            # With 8 lanes the last word of a row may be half full; what lies beyond must not raise a flag.
            beyond = final & cur.quads[0] if k >= 4 else 0
            m.d.sync += w.raw[k].eq(Mux(beyond, 0, raw))
        return m
