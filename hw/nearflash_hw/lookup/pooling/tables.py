"""Parameters of the open tables, and where each table's accumulators start."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import RowFormat

from ...interfaces import bits_for
from .shapes import Shapes

__all__ = ["PoolTables"]


class PoolTables(wiring.Component):
    """Remembers the tables and gives two clients their parameters.

    ``table_valid`` with ``table`` stores one table (a closed one has no elements), then recomputes every table's base:
    table t starts after tables 0..t-1, each rounded up to whole accumulator words. ``busy`` meanwhile, up to max_tables + 3
    cycles; clients start nothing new then. A lookup: ``lookup_table[k]`` with ``lookup[k]``, answered on ``params[k]`` and
    ``base[k]`` in the next cycle and held until the next one.
    """

    def __init__(self, config: DeviceConfig):
        self.s = s = Shapes(config)
        self.max_tables = config.lookup.max_tables
        super().__init__({
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(s.layouts.table_write),
            #: Clients start nothing new.
            "busy": Out(1),
            #: Of each client: ``lookup_table``'s parameters are wanted.
            "lookup": In(1).array(2),
            "lookup_table": In(s.layouts.table_bits).array(2),
            #: From the next cycle on, until the next ``lookup``.
            "params": Out(s.params).array(2),
            "base": Out(s.word_bits).array(2),
        })

    def elaborate(self, platform):
        m = Module()
        s, t = self.s, self.table
        m.submodules.params_ram = params_ram = Memory(shape=s.params, depth=self.max_tables, init=[])
        m.submodules.base_ram = base_ram = Memory(shape=s.word_bits, depth=self.max_tables, init=[])
        m.submodules.size_ram = size_ram = Memory(shape=s.quad_bits, depth=self.max_tables, init=[])
        for k in range(2):
            for ram, out in ((params_ram, self.params[k]), (base_ram, self.base[k])):
                port = ram.read_port()
                m.d.comb += [
                    port.addr.eq(self.lookup_table[k]),
                    port.en.eq(self.lookup[k]),
                ]
                target = out.as_value() if hasattr(out, "as_value") else out
                m.d.comb += target.eq(port.data.as_value() if hasattr(port.data, "as_value") else port.data)

        quads = Mux(t.open, t.dim >> 2, 0)
        write, size_write = params_ram.write_port(), size_ram.write_port()
        m.d.comb += [
            write.addr.eq(t.table),
            write.en.eq(self.table_valid),
            write.data.format.eq(t.format),
            write.data.mean.eq(t.mean),
            write.data.quads.eq(quads),
            write.data.lsb_exp.eq(t.lsb_exp),
            # The two parts of an INT8 contribution have half the range each.
            write.data.limit.eq(s.acc_bits - 1 - t.headroom - (t.format == RowFormat.INT8)),
            size_write.addr.eq(t.table),
            size_write.en.eq(self.table_valid),
            size_write.data.eq(quads),
        ]

        # Prefix sum over the sizes, one table a cycle; the size read for table t arrives as t + 1 is asked for.
        size_read, base_write = size_ram.read_port(), base_ram.write_port()
        ask = Signal(bits_for(self.max_tables))
        got, got_table = Signal(), Signal(s.layouts.table_bits)
        total = Signal(s.word_bits)
        asking = Signal()
        m.d.comb += [
            size_read.addr.eq(ask),
            size_read.en.eq(asking),
            base_write.addr.eq(got_table),
            base_write.data.eq(total),
            base_write.en.eq(got),
            self.busy.eq(self.table_valid | asking | got),
        ]
        m.d.sync += [
            got.eq(asking),
            got_table.eq(ask),
        ]
        with m.If(asking):
            m.d.sync += ask.eq(ask + 1)
            with m.If(ask == self.max_tables - 1):
                m.d.sync += asking.eq(0)
        with m.If(got):
            m.d.sync += total.eq(total + s.words(size_read.data))
        with m.If(self.table_valid):
            m.d.sync += [
                asking.eq(1),
                ask.eq(0),
                got.eq(0),
                total.eq(0),
            ]
        return m
