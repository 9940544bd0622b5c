"""The pooling block (EV Sum in the paper): embedding rows in, pooled fp32 vectors out."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from .accumulators import Accumulators
from .drain import Drain
from .issue import Issue
from .row_buffer import RowBuffer
from .shapes import Shapes
from .tables import PoolTables
from .touched import Touched

__all__ = ["Pooling"]


class Pooling(wiring.Component):
    """Adds each row to its (slot, table)'s accumulators in a fixed-point window; drains a slot to fp32 on demand.

    No row or drain starts for max_tables + 3 cycles after a ``table_valid`` (see :class:`PoolTables`).

    Rows are taken whatever ``pooled`` and ``drained`` do: one beat per 1 (FP32), 2 (FP16) or 4 (INT8) cycles, weighted
    or not, if the table has at least ``Accumulators.HAZARD`` (4) accumulator words or consecutive rows are of different
    (slot, table); a drain takes at most every other cycle while rows wait. In an idle
    block a row of n words is retired 20 + n cycles after its first beat was taken (INT8: 23 + n after its last; 13 + n in a
    device without INT8), and a
    drain's first element comes after 20.

    Not checked here: that the tables' dimensions, each rounded up to whole words, fit lookup.accumulators, and that a
    bag holds at most 2**headroom rows. Model: :mod:`nearflash.reference.pooling` defines every bit.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        self.s = s = Shapes(config)
        lay = s.layouts
        super().__init__({
            #: Rows of open tables, slots and tables interleaved.
            "vector": In(stream.Signature(lay.vector_beat)),
            #: The length of each bag, before its slot's drain.
            "bag": In(stream.Signature(lay.bag)),
            #: A slot whose rows were all retired.
            "drain": In(stream.Signature(lay.drain)),
            #: One per row, in order of arrival, once its elements are added.
            "retire": Out(stream.Signature(lay.retire)),
            #: A slot is empty.
            "drained": Out(stream.Signature(data.StructLayout({"slot": lay.slot_bits}))),
            #: Its elements.
            "pooled": Out(stream.Signature(lay.pooled_element)),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(lay.table_write),
            #: What a reset found in memories is gone; nothing may come before.
            "cleared": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.tables = tables = PoolTables(c)
        m.submodules.touched = touched = Touched(c)
        m.submodules.row_buffer = rows = RowBuffer(c)
        m.submodules.issue = issue = Issue(c)
        m.submodules.accumulators = acc = Accumulators(c)
        m.submodules.drainer = drain = Drain(c)
        flipped = wiring.flipped
        wiring.connect(m, flipped(self.vector), rows.vector)
        wiring.connect(m, flipped(self.bag), drain.bag)
        wiring.connect(m, flipped(self.drain), drain.drain)
        wiring.connect(m, drain.drained, flipped(self.drained))
        wiring.connect(m, drain.pooled, flipped(self.pooled))
        wiring.connect(m, acc.retire, flipped(self.retire))
        wiring.connect(m, rows.row, issue.row)
        wiring.connect(m, rows.beats, issue.beats)
        m.d.comb += [
            self.cleared.eq(touched.cleared),
            tables.table_valid.eq(self.table_valid),
            tables.table.eq(self.table),
            rows.hold.eq(tables.busy),
            drain.hold.eq(tables.busy),
            touched.set_at.eq(issue.touch_at),
            touched.set.eq(issue.touch),
            issue.touched.eq(touched.set_sees),
            touched.clear_at.eq(drain.clear_at),
            touched.clear.eq(drain.clear),
            drain.touched.eq(touched.clear_sees),
            issue.read.eq(drain.read),
            issue.read_addr.eq(drain.read_addr),
            drain.read_granted.eq(issue.read_granted),
            issue.retired.eq(self.retire.valid & self.retire.ready),
            acc.word_valid.eq(issue.word_valid),
            acc.word.eq(issue.word),
            drain.values_valid.eq(acc.values_valid),
            drain.values.eq(acc.values),
        ]
        for k, client in enumerate((rows, drain)):
            m.d.comb += [
                tables.lookup[k].eq(client.lookup),
                tables.lookup_table[k].eq(client.lookup_table),
                client.params.eq(tables.params[k]),
                client.base.eq(tables.base[k]),
            ]
        return m
