"""Two passes over a query: one that checks it whole, one that sends its dense features and lookups on their way."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Opcode

from ..interfaces import Layouts
from .layouts import LookupLayouts, Outcome
from .parser import QueryParser

__all__ = ["Executor"]


class Executor(wiring.Component):
    """Reads the query of each command twice, through one parser. Nothing of it comes out in pass 1, which finds whatever is
    wrong with it before it has any effect; then the command is announced on ``pending``, in order. In pass 2, of a command
    that passed, ``dense`` and ``item`` come out, and at its end one ``executed``: good, unless the host changed the query
    between the passes or the bus failed. Then the parser has completed the command with empty bags.

    A command's pass 1 waits for the pass 2 before it. What that has sent to the flash and not yet got back keeps the flash
    busy meanwhile.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: Commands; one that failed its checks is announced, and not read.
            "i": In(stream.Signature(LookupLayouts.of(config).checked)),
            #: Tables that are opened and closed.
            "table_valid": In(1),
            "table": In(layouts.table_write),
            #: A transfer for each pass, and its beats.
            "host_req": Out(stream.Signature(layouts.prp_request)),
            "host_data": In(stream.Signature(layouts.host_data)),
            #: Of pass 2: features,
            "dense": Out(stream.Signature(layouts.dense_element)),
            #: and lookups, bags and samples.
            "item": Out(stream.Signature(layouts.lookup_item)),
            #: Of every command, in order, before its pass 2.
            "pending": Out(stream.Signature(LookupLayouts.of(config).pending)),
            #: Of a command that passed: its pass 2 is over.
            "executed": Out(stream.Signature(Outcome())),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.parser = parser = QueryParser(self.config)
        connect(m, flipped(self.host_data), parser.host_data)
        m.d.comb += [
            parser.table_valid.eq(self.table_valid),
            parser.table.eq(self.table),
        ]

        checking = Signal()  # of the pass that the parser is on
        for source, port in ((parser.dense, self.dense), (parser.item, self.item), (parser.result, self.executed)):
            m.d.comb += [
                port.payload.eq(source.payload),
                port.valid.eq(source.valid & ~checking),
                source.ready.eq(port.ready | checking),
            ]

        cmd = self.i.payload.command
        outcome = Signal(Outcome(), reset_less=True)  # of the checks and pass 1
        lookup, first = Signal(), Signal()  # first: the pass to begin
        p, start = self.pending.payload, parser.start.payload
        m.d.comb += [
            lookup.eq(cmd.opcode == Opcode.LOOKUP),
            p.lookup.eq(lookup),
            p.qid.eq(cmd.qid),
            p.cid.eq(cmd.cid),
            p.batch.eq(cmd.batch),
            p.out_addr.eq(cmd.out_addr),
            p.outcome.eq(outcome),
            start.words.eq(cmd.words),
            start.batch.eq(cmd.batch),
            start.tables.eq(cmd.tables),
            start.dense.eq(cmd.dense),
            start.weighted.eq(cmd.weighted),
            start.lookup.eq(lookup),
            self.host_req.payload.prp1.eq(cmd.prp1),
            self.host_req.payload.prp2.eq(cmd.prp2),
            self.host_req.payload.length.eq(cmd.words << 2),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    outcome.eq(self.i.payload.outcome),
                    first.eq(1),
                ]
                with m.If(self.i.valid):
                    m.next = "START"
                    with m.If(self.i.payload.outcome.status != 0):
                        m.next = "ANNOUNCE"
            with m.State("START"):  # waits here while the parser is still on the command before
                m.d.comb += parser.start.valid.eq(1)
                with m.If(parser.start.ready):
                    m.d.sync += checking.eq(first)
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.host_req.valid.eq(1)
                with m.If(self.host_req.ready):
                    m.next = "CHECK"
                    with m.If(~first):
                        m.d.comb += self.i.ready.eq(1)
                        m.next = "IDLE"
            with m.State("CHECK"):
                m.d.sync += outcome.eq(parser.result.payload)
                with m.If(parser.result.valid):
                    m.next = "ANNOUNCE"
            with m.State("ANNOUNCE"):
                m.d.comb += self.pending.valid.eq(1)
                m.d.sync += first.eq(0)
                with m.If(self.pending.ready):
                    m.next = "START"
                    with m.If(outcome.status != 0):
                        m.d.comb += self.i.ready.eq(1)
                        m.next = "IDLE"
        return m
