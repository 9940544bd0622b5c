"""Turns a slot's accumulators into pooled fp32 vectors."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ...interfaces import bits_for, index_bits
from ...model import observe
from ...primitives.fifo import StreamFifo
from ...primitives.float32 import FP32_NAN, IntToFp32
from ...primitives.register_slice import RegisterSlice
from .divider import MeanDivider
from .shapes import Shapes

__all__ = ["Drain"]

WORDS = 8  # accumulator words asked for and not yet emitted; covers the read latency of 10 cycles


class Drain(wiring.Component):
    """For each ``drain``: every element of tables 0..T-1 of its slot on ``pooled``, then ``drained``.

    One half walks the tables, asks for their accumulator words (``read``, answered in order on ``values``) and clears their
    touched bits; the other half converts element by element. The first half goes on to the next ``drain`` while the
    second still emits. SUM: one element per cycle (two cycles per table besides, mostly hidden). MEAN: one per
    ``MeanDivider.cycles``. A slot is ``drained`` when its last element was taken.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        self.s = s = Shapes(config)
        lay = s.layouts
        super().__init__({
            #: Kept for means.
            "bag": In(stream.Signature(lay.bag)),
            #: Slots whose rows were all retired.
            "drain": In(stream.Signature(lay.drain)),
            #: A slot's last element was taken.
            "drained": Out(stream.Signature(data.StructLayout({"slot": lay.slot_bits}))),
            #: The elements.
            "pooled": Out(stream.Signature(lay.pooled_element)),
            #: Start nothing new: the table parameters are changing.
            "hold": In(1),
            #: ``lookup_table``'s ``params`` and ``base`` are wanted in the next cycle.
            "lookup": Out(1),
            "lookup_table": Out(lay.table_bits),
            "params": In(s.params),
            "base": In(s.word_bits),
            #: (slot, table) that is being drained,
            "clear_at": Out(s.slot_table_bits),
            #: done with,
            "clear": Out(1),
            #: and whether it held anything.
            "touched": In(1),
            #: A word of accumulators is wanted,
            "read": Out(1),
            "read_addr": Out(s.addr_bits),
            #: and will come.
            "read_granted": In(1),
            #: Words, in the order of the reads.
            "values_valid": In(1),
            "values": In(s.values),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.jobs = jobs = StreamFifo(self.s.job, WORDS)
        m.submodules.words = words = StreamFifo(self.s.values, WORDS + 1)
        self._walk(m, jobs, words, platform)
        self._emit(m, jobs, words)
        return m

    def _walk(self, m, jobs, words, platform):
        """Tables in, one job per accumulator word out."""
        s, lay = self.s, self.s.layouts
        m.d.comb += self.bag.ready.eq(1)

        d = Signal(lay.drain, reset_less=True)
        table = Signal(lay.table_bits, reset_less=True)
        tables_left = Signal(lay.table_bits + 1, reset_less=True)
        zero = Signal(reset_less=True)
        at = Signal(s.word_bits, reset_less=True)
        words_left = Signal(bits_for(s.words_per_sample), reset_less=True)

        key, job = Cat(table, d.slot), jobs.i.p
        put = Signal()
        if s.mean:
            m.submodules.counts = counts = Memory(shape=lay.bag_bits, depth=1 << s.slot_table_bits, init=[])
            count_write, count_read = counts.write_port(), counts.read_port()
            m.d.comb += [
                count_write.en.eq(self.bag.valid),
                count_write.data.eq(self.bag.p.count),
                count_write.addr.eq(Cat(self.bag.p.table, self.bag.p.slot)),
                count_read.addr.eq(key),
                count_read.en.eq(self.lookup),
                job.mean.eq(self.params.mean),
                job.count.eq(count_read.data),
            ]
        m.d.comb += [
            self.lookup_table.eq(table),
            self.clear_at.eq(key),
            self.read_addr.eq(Cat(at, d.slot)),
            jobs.i.valid.eq(put),
            job.zero.eq(zero),
            job.half.eq(0),
            job.lsb_exp.eq(self.params.lsb_exp),
            job.tag.table.eq(table),
            job.tag.bad.eq(d.bad),
            job.tag.last_of_table.eq(words_left == 0),
            job.tag.last_of_sample.eq((words_left == 0) & (tables_left == 0)),
            job.tag.slot.eq(d.slot),
            Value.cast(job.tag.sample).eq(Value.cast(d.sample)),
        ]
        if s.lanes == 8:
            m.d.comb += job.half.eq((words_left == 0) & self.params.quads[0])

        observe(m, platform, "drain", begin=self.drain.valid & self.drain.ready, slot=self.drain.p.slot,
                end=put & (words_left == 0) & (tables_left == 0))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.drain.ready.eq(~self.hold)
                with m.If(self.drain.valid & ~self.hold):
                    m.d.sync += [
                        d.eq(self.drain.p),
                        table.eq(0),
                        tables_left.eq(self.drain.p.sample.tables),
                    ]
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += self.lookup.eq(1)
                with m.If(tables_left == 0):  # only a sample without tables gets here so
                    m.next = "EMPTY"
                with m.Else():
                    m.d.sync += tables_left.eq(tables_left - 1)
                    m.next = "TABLE"
            with m.State("TABLE"):
                m.d.sync += [
                    zero.eq(d.bad | ~self.touched),
                    at.eq(self.base),
                    words_left.eq(s.words(self.params.quads) - 1),
                ]
                m.d.comb += self.clear.eq(self.touched)
                m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += [
                    # A job keeps its place, or is the one behind them, until its word is used: so there is one for the word.
                    self.read.eq(~zero & jobs.i.ready),
                    put.eq(jobs.i.ready & (zero | self.read_granted)),
                ]
                with m.If(put):
                    m.d.sync += [
                        at.eq(at + 1),
                        words_left.eq(words_left - 1),
                    ]
                    with m.If(words_left == 0):
                        m.d.sync += table.eq(table + 1)
                        m.next = "NEXT"
                        with m.If(tables_left == 0):
                            m.next = "IDLE"
            with m.State("EMPTY"):
                m.d.comb += [
                    put.eq(1),
                    job.zero.eq(1),
                    job.tag.none.eq(1),
                ]
                with m.If(jobs.i.ready):
                    m.next = "IDLE"

        m.d.comb += [
            words.i.valid.eq(self.values_valid),
            words.i.p.eq(self.values),
        ]

    def _emit(self, m, jobs, words):
        """Jobs and their words in, pooled elements out."""
        s, lay = self.s, self.s.layouts
        if s.mean:
            m.submodules.divider = divider = MeanDivider(self.config)
            element, value, bits = divider.i, divider.o, divider.out_bits
        else:
            sums = data.StructLayout({"i": signed(s.acc_bits), "e": signed(10), "tag": s.element_tag})
            m.submodules.sums = slice_ = RegisterSlice(sums, "through")
            element, value, bits = slice_.i, slice_.o, s.acc_bits
        m.submodules.convert = convert = IntToFp32(bits, tag=s.element_tag, exp_bits=10)
        m.submodules.finished = finished = StreamFifo(
            data.StructLayout({"slot": lay.slot_bits}), self.config.lookup.sample_slots)
        wiring.connect(m, value, convert.i)
        wiring.connect(m, finished.o, wiring.flipped(self.drained))

        m.submodules.next = next_job = RegisterSlice(s.job, "through")
        wiring.connect(m, jobs.o, next_job.i)
        job = next_job.o.p
        index = Signal(index_bits(s.lanes))
        last, sent = Signal(), Signal()
        lanes = Cat(words.o.p[k].as_unsigned() for k in range(s.lanes))
        m.d.comb += [
            element.valid.eq(next_job.o.valid & (job.zero | words.o.valid)),
            element.p.e.eq(job.lsb_exp),
            Value.cast(element.p.tag).eq(Value.cast(job.tag)),
            last.eq(job.tag.none | (index == Mux(job.half, 3, s.lanes - 1))),
            element.p.tag.last_of_table.eq(last & job.tag.last_of_table),
            element.p.tag.last_of_sample.eq(last & job.tag.last_of_sample),
            sent.eq(element.valid & element.ready),
            next_job.o.ready.eq(sent & last),
            words.o.ready.eq(sent & last & ~job.zero),
        ]
        total = Mux(job.zero, 0, lanes.word_select(index, s.acc_bits))
        if s.mean:
            m.d.comb += [
                element.p.value.eq(total),
                element.p.mean.eq(job.mean & ~job.zero),
                element.p.count.eq(job.count),
            ]
        else:
            m.d.comb += element.p.i.eq(total)
        with m.If(sent):
            m.d.sync += index.eq(Mux(last, 0, index + 1))

        m.submodules.out = slice_ = RegisterSlice(lay.pooled_element)
        wiring.connect(m, slice_.o, wiring.flipped(self.pooled))
        out, tag, pooled = convert.o, convert.o.p.tag, slice_.i.p
        ends = tag.none | tag.last_of_sample
        m.d.comb += [
            # Every slot has at most one drain under way, so there is always room in `finished`.
            slice_.i.valid.eq(out.valid & ~tag.none),
            out.ready.eq(slice_.i.ready),
            finished.i.valid.eq(out.valid & out.ready & ends),
            finished.i.p.slot.eq(tag.slot),
            pooled.value.eq(Mux(tag.bad, FP32_NAN, out.p.value)),
            pooled.table.eq(tag.table),
            pooled.last_of_table.eq(tag.last_of_table),
            pooled.last_of_sample.eq(tag.last_of_sample),
            pooled.bad.eq(tag.bad),
            Value.cast(pooled.sample).eq(Value.cast(tag.sample)),
        ]
