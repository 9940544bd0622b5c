"""Checks of a command that need nothing of its query stream."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, Opcode, Status

from ..interfaces import Layouts, bits_for
from ..primitives.clear_walk import ClearWalk
from .layouts import WORD_BITS, LookupLayouts, Outcome

__all__ = ["Validator"]


class Validator(wiring.Component):
    """Checks one command at a time: its header, then its tables (2 cycles each).

    The checks and their order are the first ones of :func:`nearflash.reference.query.check_query`.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            "cmd": In(stream.Signature(layouts.infer_command)),
            #: The command with its outcome, in order.
            "o": Out(stream.Signature(LookupLayouts.of(config).checked)),
            #: Tables that are opened and closed.
            "table_valid": In(1),
            "table": In(layouts.table_write),
            #: After a reset: all tables are closed. None may be opened before.
            "cleared": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, lk, layouts = self.config, self.config.lookup, Layouts.of(self.config)
        graph = c.mlp.graph
        entry = data.StructLayout({"open": 1, "dim": len(self.table.dim)})
        m.submodules.dims = ram = Memory(shape=entry, depth=lk.max_tables, init=[])
        write, read = ram.write_port(), ram.read_port()
        m.submodules.walk = walk = ClearWalk(layouts.table_bits)  # closes all tables
        m.d.comb += self.cleared.eq(~walk.busy)
        m.d.sync += [
            write.en.eq(self.table_valid | walk.busy),
            write.addr.eq(Mux(walk.busy, walk.at, self.table.table)),
            write.data.open.eq(self.table.open & ~walk.busy),
            write.data.dim.eq(self.table.dim),
        ]

        cmd = Signal(layouts.infer_command, reset_less=True)
        outcome = Signal(Outcome(), reset_less=True)
        lookup = Signal()
        table = Signal(layouts.table_bits + 1)
        # The accumulators a sample needs: every table starts at a whole beat of lanes.
        most = bits_for(lk.max_tables * (lk.max_dim + lk.lanes))
        total = Signal(most)
        rounded = Signal(bits_for(lk.max_dim + lk.lanes))
        nodes = [n for n in graph if n.kind == "tables"]
        widths = [Signal(most, name=f"width_{n.name}") for n in nodes]
        m.d.comb += [
            lookup.eq(cmd.opcode == Opcode.LOOKUP),
            read.addr.eq(table),
            rounded.eq((read.data.dim + lk.lanes - 1) & ~(lk.lanes - 1)),
            self.o.payload.command.eq(cmd),
            self.o.payload.outcome.eq(outcome),
        ]
        reach = c.bus.address_bits
        room_bits = ((1 << reach) - c.results_reach).bit_length() - 1
        n_dense = sum(n.width for n in graph if n.kind == "dense")
        n_tables = sum(len(n.tables) for n in nodes)
        bad_shape, bad_offset, bad_address = Signal(), Signal(), Signal()  # of ``cmd``, a cycle late
        m.d.sync += [
            bad_offset.eq(cmd.out_addr[: (c.beat_bytes - 1).bit_length()].any()),
            bad_address.eq(cmd.out_addr[reach:].any() | cmd.out_addr[room_bits:reach].all()),
        ]
        m.d.sync += bad_shape.eq(
            (cmd.batch == 0) | (cmd.batch > c.host.max_batch) | (cmd.tables == 0) | (cmd.tables > lk.max_tables)
            | (cmd.words == 0) | cmd.words[WORD_BITS:].any() | (lookup & (cmd.dense != 0))
            | (~lookup & ((cmd.tables != n_tables) | (cmd.dense != n_dense))))
        bad_widths = Signal()
        m.d.sync += bad_widths.eq(total > lk.accumulators)
        for n, w in zip(nodes, widths, strict=True):
            with m.If(~lookup & (w != n.width)):
                m.d.sync += bad_widths.eq(1)

        def fail(status, dw0=0):
            m.d.sync += [
                outcome.status.eq(status),
                outcome.dw0.eq(dw0),
            ]
            m.next = "EMIT"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [
                    cmd.eq(self.cmd.payload),
                    outcome.eq(0),
                    table.eq(0),
                    total.eq(0),
                    *(w.eq(0) for w in widths),
                ]
                with m.If(self.cmd.valid):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.next = "HEADER"
            with m.State("HEADER"):
                with m.If(~lookup & (not graph)):
                    fail(Status.NO_PROGRAM)
                with m.Elif(bad_shape):
                    fail(Status.BAD_BATCH)
                with m.Elif(bad_offset):
                    fail(Status.INVALID_PRP_OFFSET)
                with m.Elif(bad_address):
                    fail(Status.DATA_TRANSFER_ERROR)
                with m.Else():
                    m.next = "READ"
            with m.State("READ"):
                m.next = "TABLE"
            with m.State("TABLE"):
                m.d.sync += [
                    total.eq(total + rounded),
                    table.eq(table + 1),
                ]
                with m.Switch(table):
                    for n, w in zip(nodes, widths, strict=True):
                        with m.Case(*n.tables):
                            m.d.sync += w.eq(w + read.data.dim)
                with m.If(~read.data.open):
                    fail(Status.UNKNOWN_TABLE, table)
                with m.Elif(table + 1 == cmd.tables):
                    m.next = "ADD"
                with m.Else():
                    m.next = "READ"
            with m.State("ADD"):
                m.next = "WIDTHS"
            with m.State("WIDTHS"):
                with m.If(bad_widths):
                    fail(Status.BAD_BATCH)
                with m.Else():
                    m.next = "EMIT"
            with m.State("EMIT"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
