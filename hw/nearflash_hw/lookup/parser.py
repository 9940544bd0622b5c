"""Walks a query stream (:mod:`nearflash.contract.nvme`), checks every word and names what it means."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..controller.host_dma import host_data_layout
from ..interfaces import ItemKind, Layouts
from .words import WordUnpacker

__all__ = ["QueryParser", "outcome_layout", "parse_request_layout"]

ONE = 0x3F800000  # 1.0 as fp32, the weight of an unweighted lookup


def parse_request_layout() -> data.StructLayout:
    """What a query stream should hold; ``batch``, ``tables`` and ``words`` at least 1."""
    return data.StructLayout({"words": 32, "batch": 16, "tables": 8, "dense": 16, "weighted": 1, "lookup": 1})


def outcome_layout() -> data.StructLayout:
    """``status`` (nvme.Status, 0 = good) with its two result words."""
    return data.StructLayout({"status": 11, "dw0": 32, "dw1": 32})


class QueryParser(wiring.Component):
    """One word per cycle, plus two cycles per bag and two per sample.

    For each ``start`` the parser takes one transfer from ``host_data`` and emits ``dense`` and ``item`` in stream order,
    then ``result``. A count above min(max_bag, 2**headroom) or a stream that is too short or too long is BAD_BATCH, an
    index that the table has no row for is INDEX_OUT_OF_RANGE, at the position of the first bad word; a failed transfer
    outranks both.

    What comes out always has the structure ``start`` asked for: after an error the rest of the stream is taken as zeros
    (dense features 0, bags empty) and swallowed, so whatever counts samples downstream still finds all of them.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts(config)
        super().__init__({
            "start": In(stream.Signature(parse_request_layout())),
            "host_data": In(stream.Signature(host_data_layout(config.beat_bytes))),
            "table_valid": In(1),
            "table": In(layouts.table_write),
            "dense": Out(stream.Signature(layouts.dense_element)),
            "item": Out(stream.Signature(layouts.lookup_item)),
            "result": Out(stream.Signature(outcome_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        lk, layouts = self.config.lookup, Layouts(self.config)
        n_batch = self.config.mlp.n_batch
        m.submodules.words = words = WordUnpacker(self.config)
        connect(m, flipped(self.host_data), words.i)
        dense, item, result = self.dense, self.item, self.result

        # Rows and longest bag of every table; a closed table has no rows.
        entry = data.StructLayout({"rows": 32, "limit": layouts.bag_bits})
        m.submodules.limits = ram = Memory(shape=entry, depth=lk.max_tables, init=[])
        write, read = ram.write_port(), ram.read_port()
        limit = Signal(layouts.bag_bits)
        with m.Switch(self.table.headroom):
            for k in range(17):
                with m.Case(k):
                    m.d.comb += limit.eq(min(1 << k, lk.max_bag))
            with m.Default():
                m.d.comb += limit.eq(lk.max_bag)
        m.d.sync += [
            write.en.eq(self.table_valid), write.addr.eq(self.table.table), write.data.limit.eq(limit),
            write.data.rows.eq(Mux(self.table.open, self.table.rows, 0))]

        req = Signal(parse_request_layout(), reset_less=True)
        samples = Signal(16)  # samples left, this one included
        table = Signal(layouts.table_bits + 1)
        dense_left = Signal(16)
        count = Signal(layouts.bag_bits)
        issued = Signal(layouts.bag_bits)
        index = Signal(32, reset_less=True)
        sample = Signal(layouts.sample)
        position = Signal(32)
        ended, failed = Signal(), Signal()

        need, use = Signal(), Signal()  # this state needs a word; and takes it in this cycle
        word_ok = Signal()
        word = Signal(32)
        arrived = words.o.valid & (words.o.payload.status == 0)
        broken = words.o.valid & (words.o.payload.status != 0)
        m.d.comb += [
            word_ok.eq(need & (failed | arrived)),
            word.eq(Mux(failed, 0, words.o.payload.word)),
            words.o.ready.eq(use & ~failed),
            read.addr.eq(table),
            dense.payload.value.eq(word), dense.payload.last.eq(dense_left == 1), dense.payload.sample.eq(sample),
            item.payload.table.eq(table), item.payload.weighted.eq(req.weighted), item.payload.sample.eq(sample),
        ]
        with m.If(use & ~failed):
            m.d.sync += [position.eq(position + 1), ended.eq(words.o.payload.last)]

        def fail(status, dw0, dw1=0):
            m.d.sync += [failed.eq(1), result.payload.status.eq(status), result.payload.dw0.eq(dw0),
                         result.payload.dw1.eq(dw1)]

        with m.If(need & ~failed):
            with m.If(ended):
                fail(Status.BAD_BATCH, position)
            with m.Elif(broken):
                m.d.comb += words.o.ready.eq(1)
                m.d.sync += ended.eq(1)
                fail(words.o.payload.status, 0)

        m.d.comb += [words.start.valid.eq(0), words.start.payload.eq(self.start.payload.words)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.start.ready.eq(words.start.ready), words.start.valid.eq(self.start.valid)]
                with m.If(self.start.valid & words.start.ready):
                    m.d.sync += [
                        req.eq(self.start.payload), samples.eq(self.start.payload.batch), position.eq(0), ended.eq(0),
                        failed.eq(0), result.payload.eq(0), sample.n.eq(0), sample.lookup.eq(self.start.payload.lookup),
                        sample.tables.eq(self.start.payload.tables)]
                    m.next = "START"
            with m.State("START"):
                m.d.sync += [table.eq(0), dense_left.eq(req.dense), sample.last.eq(samples == 1)]
                with m.If(sample.n == 0):
                    m.d.sync += sample.nb.eq(Mux(samples < n_batch, samples, n_batch) - 1)
                with m.If(req.dense != 0):
                    m.next = "DENSE"
                with m.Else():
                    m.next = "TABLE"
            with m.State("DENSE"):
                m.d.comb += [need.eq(1), dense.valid.eq(word_ok), use.eq(word_ok & dense.ready)]
                with m.If(use):
                    m.d.sync += dense_left.eq(dense_left - 1)
                    with m.If(dense_left == 1):
                        m.next = "TABLE"
            with m.State("TABLE"):  # the table's limits are being read
                m.next = "COUNT"
            with m.State("COUNT"):
                m.d.comb += [need.eq(1), use.eq(word_ok)]
                m.d.sync += [count.eq(word), issued.eq(0)]
                with m.If(use):
                    with m.If(word > read.data.limit):
                        fail(Status.BAD_BATCH, position)
                        m.next = "BAG"
                    with m.Elif(word == 0):
                        m.next = "BAG"
                    with m.Else():
                        m.next = "INDEX"
            with m.State("INDEX"):
                with m.If(failed):
                    m.next = "BAG"
                with m.Else():
                    m.d.comb += [
                        need.eq(1), item.payload.kind.eq(ItemKind.LOOKUP), item.payload.index.eq(word),
                        item.payload.weight.eq(ONE)]
                    m.d.sync += index.eq(word)
                    with m.If(word >= read.data.rows):
                        m.d.comb += use.eq(word_ok)
                        with m.If(word_ok):
                            fail(Status.INDEX_OUT_OF_RANGE, position, table)
                    with m.Elif(req.weighted):
                        m.d.comb += use.eq(word_ok)
                        with m.If(word_ok):
                            m.next = "WEIGHT"
                    with m.Else():
                        m.d.comb += [item.valid.eq(word_ok), use.eq(word_ok & item.ready)]
                        with m.If(use):
                            m.d.sync += issued.eq(issued + 1)
                            with m.If(issued + 1 == count):
                                m.next = "BAG"
            with m.State("WEIGHT"):
                with m.If(failed):
                    m.next = "BAG"
                with m.Else():
                    m.d.comb += [
                        need.eq(1), item.payload.kind.eq(ItemKind.LOOKUP), item.payload.index.eq(index),
                        item.payload.weight.eq(word), item.valid.eq(word_ok), use.eq(word_ok & item.ready)]
                    with m.If(use):
                        m.d.sync += issued.eq(issued + 1)
                        m.next = "INDEX"
                        with m.If(issued + 1 == count):
                            m.next = "BAG"
            with m.State("BAG"):
                m.d.comb += [item.valid.eq(1), item.payload.kind.eq(ItemKind.BAG), item.payload.count.eq(issued)]
                with m.If(item.ready):
                    m.d.sync += table.eq(table + 1)
                    m.next = "TABLE"
                    with m.If(table + 1 == req.tables):
                        m.next = "SAMPLE"
            with m.State("SAMPLE"):
                m.d.comb += [item.valid.eq(1), item.payload.kind.eq(ItemKind.SAMPLE), item.payload.table.eq(0)]
                with m.If(item.ready):
                    m.d.sync += [samples.eq(samples - 1), sample.n.eq(Mux(sample.n == sample.nb, 0, sample.n + 1))]
                    m.next = "START"
                    with m.If(sample.last):
                        m.next = "END"
            with m.State("END"):
                with m.If(~failed & ~ended):
                    fail(Status.BAD_BATCH, position)
                m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(ended):
                    m.next = "RESULT"
                with m.Else():
                    m.d.comb += words.o.ready.eq(1)
                    with m.If(words.o.valid):
                        m.d.sync += ended.eq(words.o.payload.last)
                        with m.If(broken):
                            fail(words.o.payload.status, 0)
            with m.State("RESULT"):
                m.d.comb += result.valid.eq(1)
                with m.If(result.ready):
                    m.next = "IDLE"
        return m
