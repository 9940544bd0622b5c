"""Walks a query stream (:mod:`nearflash.contract.nvme`), checks every word and names what it means."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..interfaces import ItemKind, Layouts
from .layouts import WORD_BITS, Outcome, ParseRequest
from .words import WordUnpacker

__all__ = ["QueryParser"]

ONE = 0x3F800000  # 1.0 as fp32, the weight of an unweighted lookup


class QueryParser(wiring.Component):
    """One word per cycle, plus three cycles per bag and two per sample.

    For each ``start`` the parser takes one transfer from ``host_data`` and emits ``dense`` and ``item`` in stream order,
    then ``result``. A count above min(max_bag, 2**headroom) or a stream that is too short or too long is BAD_BATCH, an
    index that the table has no row for is INDEX_OUT_OF_RANGE, at the position of the first bad word; a failed transfer
    outranks both.

    What comes out always has the structure ``start`` asked for: after an error the rest of the stream is taken as zeros
    (dense features 0, bags empty) and swallowed, so whatever counts samples downstream still finds all of them.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: A query stream to come.
            "start": In(stream.Signature(ParseRequest())),
            #: One transfer for each ``start``.
            "host_data": In(stream.Signature(layouts.host_data)),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(layouts.table_write),
            #: Features, in stream order.
            "dense": Out(stream.Signature(layouts.dense_element)),
            #: Lookups, bags and samples, in stream order.
            "item": Out(stream.Signature(layouts.lookup_item)),
            #: Once all of it came out.
            "result": Out(stream.Signature(Outcome())),
        })

    def elaborate(self, platform):
        m = Module()
        lk, layouts = self.config.lookup, Layouts.of(self.config)
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
            write.en.eq(self.table_valid),
            write.addr.eq(self.table.table),
            write.data.limit.eq(limit),
            write.data.rows.eq(Mux(self.table.open, self.table.rows, 0)),
        ]

        req = Signal(ParseRequest(), reset_less=True)
        samples = Signal(16)  # samples left, this one included
        table = Signal(layouts.table_bits + 1)
        dense_left = Signal(16)
        left = Signal(layouts.bag_bits)  # lookups of the bag that are still to be read
        issued = Signal(layouts.bag_bits)  # and those that have left
        empty, too_long = Signal(), Signal()
        sample = Signal(layouts.sample)
        position = Signal(WORD_BITS)  # of the next word, and after an error of the word at fault
        back = Signal()  # that is the last one taken
        ended, failed = Signal(), Signal()

        need, use = Signal(), Signal()  # this state needs a word; and takes it in this cycle
        word_ok = Signal()
        word = Signal(32)

        # An item waits in a register for one cycle at least, while its index is found good or bad. A weighted lookup's index
        # is there first: its weight joins it.
        held = Signal(layouts.lookup_item, reset_less=True)
        waiting, bad, checked = Signal(), Signal(), Signal()
        pushed = Signal(layouts.lookup_item)
        push, free, keep_index = Signal(), Signal(), Signal()
        m.d.comb += [
            item.payload.eq(held),
            item.valid.eq(waiting & ~bad),
            free.eq(~waiting | bad | item.ready),
            pushed.table.eq(table),
            pushed.weighted.eq(req.weighted),
            pushed.sample.eq(sample),
            pushed.count.eq(issued),
            pushed.index.eq(Mux(keep_index, held.index, word)),
        ]
        with m.If(free):
            m.d.sync += [
                waiting.eq(push),
                held.eq(pushed),
                bad.eq(checked & ((word >= read.data.rows) | (waiting & bad))),
            ]
        with m.If(item.valid & item.ready & (held.kind == ItemKind.LOOKUP)):
            m.d.sync += issued.eq(issued + 1)

        arrived = words.o.valid & ~words.o.payload.failed
        broken = words.o.valid & words.o.payload.failed
        m.d.comb += [
            word_ok.eq(need & (failed | arrived)),
            word.eq(Mux(failed, 0, words.o.payload.word)),
            words.o.ready.eq(use & ~failed),
            read.addr.eq(table),
            dense.payload.value.eq(word),
            dense.payload.last.eq(dense_left == 1),
            dense.payload.sample.eq(sample),
        ]
        with m.If(use & ~failed):
            m.d.sync += ended.eq(words.o.payload.last)
        with m.If((use & ~failed) | back):
            m.d.sync += position.eq(position + Mux(back, -1, 1))

        # What failed first: a transfer, with its status, or else a word, an index if it is of a table.
        lost, no_row = Signal(), Signal()
        lost_status = Signal(11, reset_less=True)
        at_table = Signal(layouts.table_bits, reset_less=True)
        p = result.payload
        m.d.comb += [
            p.status.eq(Mux(lost, lost_status, Mux(no_row, Status.INDEX_OUT_OF_RANGE, Mux(failed, Status.BAD_BATCH, 0)))),
            p.dw0.eq(Mux(failed & ~lost, position, 0)),
            p.dw1.eq(Mux(no_row & ~lost, at_table, 0)),
        ]
        with m.If(broken):
            m.d.sync += lost_status.eq(words.o.payload.status)

        def fail(*, taken, no_row_of=None):
            """At the word that was taken last, or at the one that should follow it."""
            m.d.comb += back.eq(taken)
            m.d.sync += [
                failed.eq(1),
                no_row.eq(no_row_of is not None),
            ]
            if no_row_of is not None:
                m.d.sync += at_table.eq(no_row_of)

        with m.If(need & ~failed):
            with m.If(ended):
                fail(taken=False)
            with m.Elif(broken):
                m.d.comb += words.o.ready.eq(1)
                m.d.sync += [
                    ended.eq(1),
                    failed.eq(1),
                    lost.eq(1),
                ]

        m.d.comb += [
            words.start.valid.eq(0),
            words.start.payload.eq(self.start.payload.words - 1),
        ]
        with m.FSM() as state:
            with m.State("IDLE"):
                m.d.comb += [
                    self.start.ready.eq(words.start.ready),
                    words.start.valid.eq(self.start.valid),
                ]
                with m.If(self.start.valid & words.start.ready):
                    m.d.sync += [
                        req.eq(self.start.payload),
                        samples.eq(self.start.payload.batch),
                        position.eq(0),
                        ended.eq(0),
                        failed.eq(0),
                        lost.eq(0),
                        no_row.eq(0),
                        sample.n.eq(0),
                        sample.lookup.eq(self.start.payload.lookup),
                        sample.tables.eq(self.start.payload.tables),
                    ]
                    m.next = "START"
            with m.State("START"):
                m.d.sync += [
                    table.eq(0),
                    dense_left.eq(req.dense),
                    sample.last.eq(samples == 1),
                ]
                with m.If(sample.n == 0):
                    m.d.sync += sample.nb.eq(Mux(samples < n_batch, samples, n_batch) - 1)
                with m.If(req.dense != 0):
                    m.next = "DENSE"
                with m.Else():
                    m.next = "TABLE"
            with m.State("DENSE"):
                m.d.comb += dense.valid.eq(word_ok)
                with m.If(use):
                    m.d.sync += dense_left.eq(dense_left - 1)
                    with m.If(dense_left == 1):
                        m.next = "TABLE"
            with m.State("TABLE"):  # the table's limits are being read
                m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += [
                    left.eq(word),
                    empty.eq(word == 0),
                    too_long.eq(word > read.data.limit),
                    issued.eq(0),
                ]
                with m.If(use):
                    m.next = "INDEX"
            with m.State("INDEX"):
                with m.If(failed | empty):
                    m.next = "BAG"
                with m.Elif(too_long):
                    fail(taken=True)
                    m.next = "BAG"
                with m.Else():
                    m.d.comb += [
                        push.eq(word_ok & ~req.weighted),
                        checked.eq(1),
                        pushed.kind.eq(ItemKind.LOOKUP),
                        pushed.weight.eq(ONE),
                    ]
                    with m.If(use):
                        with m.If(req.weighted):
                            m.next = "WEIGHT"
                        with m.Else():
                            m.d.sync += left.eq(left - 1)
                            with m.If(left == 1):
                                m.next = "BAG"
            with m.State("WEIGHT"):
                m.d.comb += keep_index.eq(1)
                with m.If(failed):
                    m.next = "BAG"
                with m.Elif(bad):  # the index, in this state's first cycle
                    fail(taken=True, no_row_of=table)
                    m.next = "BAG"
                with m.Else():
                    m.d.comb += [
                        push.eq(word_ok),
                        pushed.kind.eq(ItemKind.LOOKUP),
                        pushed.weight.eq(word),
                    ]
                    with m.If(use):
                        m.d.sync += left.eq(left - 1)
                        m.next = "INDEX"
                        with m.If(left == 1):
                            m.next = "BAG"
            with m.State("BAG"):  # once its last lookup has left, and is counted
                m.d.comb += [
                    push.eq(~waiting),
                    pushed.kind.eq(ItemKind.BAG),
                ]
                with m.If(push):
                    m.d.sync += table.eq(table + 1)
                    m.next = "TABLE"
                    with m.If(table + 1 == req.tables):
                        m.next = "SAMPLE"
            with m.State("SAMPLE"):
                m.d.comb += [
                    push.eq(1),
                    pushed.kind.eq(ItemKind.SAMPLE),
                    pushed.table.eq(0),
                ]
                with m.If(free):
                    m.d.sync += [
                        samples.eq(samples - 1),
                        sample.n.eq(Mux(sample.n == sample.nb, 0, sample.n + 1)),
                    ]
                    m.next = "START"
                    with m.If(sample.last):
                        m.next = "END"
            with m.State("END"):
                with m.If(~waiting):
                    with m.If(~failed & ~ended):
                        fail(taken=False)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(ended):
                    m.next = "RESULT"
                with m.Else():
                    m.d.comb += words.o.ready.eq(1)
                    with m.If(words.o.valid):
                        m.d.sync += ended.eq(words.o.payload.last)
                        with m.If(broken):
                            m.d.sync += [
                                failed.eq(1),
                                lost.eq(1),
                            ]
            with m.State("RESULT"):
                m.d.comb += result.valid.eq(1)
                with m.If(result.ready):
                    m.next = "IDLE"
        # Said here and not state by state: the way from the state to the word's register is the parser's longest.
        in_index = state.ongoing("INDEX") & ~(failed | empty | too_long)
        in_weight = state.ongoing("WEIGHT") & ~(failed | bad)
        m.d.comb += [
            need.eq(state.ongoing("DENSE") | state.ongoing("COUNT") | in_index | in_weight),
            use.eq((failed | arrived) & ((state.ongoing("DENSE") & dense.ready) | state.ongoing("COUNT")
                                         | ((in_index | in_weight) & free))),
        ]
        # Last: its word, taken a cycle ago, came before any that fails above; the table's number waits for it to leave.
        with m.If(waiting & bad & ~failed):
            fail(taken=True, no_row_of=table)
        return m
