"""Takes rows off the stream, holds them until their factors are known."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.table import RowFormat

from ...interfaces import bits_for
from ...primitives.fifo import StreamFifo
from ...primitives.float32 import FP32_ONE
from .row_scale import RowScale
from .shapes import ROWS_IN_FLIGHT, Shapes

__all__ = ["RowBuffer"]


class RowBuffer(wiring.Component):
    """``vector`` in; out, in the same order, ``beats`` (the rows' bytes) and one ``row`` each (factors and place).

    An FP32 or FP16 row comes out as it goes in: its factor is the weight, known from its first beat. An INT8 row's
    scale and bias lie behind its elements, so its ``row`` follows its last beat, and ``beats`` can hold two of the
    largest such rows. One beat a cycle; the last beat of an INT8 row takes three. ``row`` comes 10 cycles after the beat
    that completes it, 3 cycles in a device without INT8.
    """

    def __init__(self, config: DeviceConfig):
        self.s = s = Shapes(config)
        super().__init__({
            #: Rows.
            "vector": In(stream.Signature(s.layouts.vector_beat)),
            #: Take no new row: the table parameters are changing.
            "hold": In(1),
            #: A row begins: its table's ``params`` and ``base`` are wanted in the next cycle.
            "lookup": Out(1),
            "lookup_table": Out(s.layouts.table_bits),
            "params": In(s.params),
            "base": In(s.word_bits),
            #: Factors and place of each row.
            "row": Out(stream.Signature(s.row)),
            #: The rows' bytes.
            "beats": Out(stream.Signature(s.beat)),
        })

    def elaborate(self, platform):
        m = Module()
        s, lay, v = self.s, self.s.layouts, self.vector
        params = self.params
        m.submodules.beats = beats = StreamFifo(s.beat, s.beat_queue)
        m.submodules.rows = rows = StreamFifo(s.row, ROWS_IN_FLIGHT)
        tag_layout = data.StructLayout({
            "slot": lay.slot_bits, "table": lay.table_bits, "base": s.word_bits, "params": s.params, "second": 1,
            "media": 1})
        scaled = RowFormat.INT8 in s.formats
        m.submodules.scale = scale = RowScale(tag_layout, scaled)
        wiring.connect(m, beats.o, wiring.flipped(self.beats))
        wiring.connect(m, rows.o, wiring.flipped(self.row))

        # Every row between its first beat and its departure owns a place in the queue of rows.
        places = Signal(bits_for(ROWS_IN_FLIGHT), init=ROWS_IN_FLIGHT)
        full, b = Signal(), Signal(lay.vector_beat, reset_less=True)
        step = Signal(2) if scaled else Const(0, 2)  # what the row's factors are made of: 1, or its scale, or its bias
        done, take = Signal(), Signal()
        m.d.comb += [
            v.ready.eq((~full | done) & ~(v.p.first & self.hold)),
            take.eq(v.valid & v.ready),
            self.lookup.eq(take & v.p.first),
            self.lookup_table.eq(v.p.table),
        ]
        with m.If(take):
            m.d.sync += [
                full.eq(1),
                b.eq(v.p),
            ]
        with m.Elif(done):
            m.d.sync += full.eq(0)

        int8 = s.is_format(params.format, RowFormat.INT8)
        go = Signal()  # the beat in b enters the queue
        m.d.comb += [
            go.eq(full & (step == 0) & beats.i.ready & (~b.first | (places != 0))),
            beats.i.valid.eq(full & (step == 0) & (~b.first | (places != 0))),
            beats.i.p.data.eq(b.data),
            beats.i.p.last.eq(b.last),
            beats.i.p.error.eq(b.error),
        ]
        scale_bits, bias_bits, media = Signal(32, reset_less=True), Signal(32, reset_less=True), Signal(reset_less=True)
        if scaled:
            # Scale and bias are the 32-bit words after the row's quads; each may lie in its own beat.
            position = Signal(bits_for(self.s.config.page_beats), reset_less=True)
            here = Mux(b.first, 0, position)
            with m.If(go):
                m.d.sync += [
                    position.eq(here + 1),
                    media.eq((media & ~b.first) | b.error),
                ]
                for at, target in ((params.quads, scale_bits), (params.quads + 1, bias_bits)):
                    with m.If(at[log2(s.lanes) :] == here):
                        m.d.sync += target.eq(b.data.word_select(at[: log2(s.lanes)], 32))
            with m.If(go & b.last & int8):
                m.d.sync += step.eq(1)
            with m.If(step == 1):
                m.d.sync += step.eq(2)
            with m.If(step == 2):
                m.d.sync += step.eq(0)
        m.d.comb += [
            done.eq((go & ~(b.last & int8)) | (step == 2)),
            scale.valid.eq((go & b.first & ~int8) | (step != 0)),
            scale.a.eq(Mux(step == 1, scale_bits, Mux(step == 2, bias_bits, FP32_ONE))),
            scale.b.eq(Mux(b.weighted, b.weight, FP32_ONE)),
            scale.tag.slot.eq(b.slot),
            scale.tag.table.eq(b.table),
            scale.tag.base.eq(self.base),
            Value.cast(scale.tag.params).eq(Value.cast(params)),
            scale.tag.second.eq(step == 2),
            scale.tag.media.eq(media & (step != 0)),
        ]

        tag, out = scale.o_tag, rows.i.p
        first = Signal(s.operand, reset_less=True)
        first_bad = Signal(reset_less=True)
        result = data.View(s.operand, Signal(s.operand.size, name="result"))
        m.d.comb += [
            result.neg.eq(scale.neg),
            result.mant.eq(scale.mant),
            result.exp.eq(scale.exp - tag.params.lsb_exp),
        ]
        with m.If(scale.o_valid):
            m.d.sync += [
                first.eq(result),
                first_bad.eq(scale.not_finite),
            ]
        is_int8 = s.is_format(tag.params.format, RowFormat.INT8)
        m.d.comb += [
            rows.i.valid.eq(scale.o_valid & (~is_int8 | tag.second)),
            out.slot.eq(tag.slot),
            out.table.eq(tag.table),
            out.base.eq(tag.base),
            out.quads.eq(tag.params.quads),
            out.format.eq(tag.params.format),
            out.limit.eq(tag.params.limit),
            out.media.eq(tag.media),
            out.not_finite.eq(scale.not_finite | (is_int8 & first_bad)),
            Value.cast(out.factor).eq(Mux(is_int8, Value.cast(first), Value.cast(result))),
            Value.cast(out.bias).eq(Value.cast(result)),
        ]
        entering, leaving = go & b.first, self.row.valid & self.row.ready
        with m.If(entering & ~leaving):
            m.d.sync += places.eq(places - 1)
        with m.Elif(leaving & ~entering):
            m.d.sync += places.eq(places + 1)
        return m
