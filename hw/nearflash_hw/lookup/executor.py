"""Pass 2 over a query: sends its dense features and lookups on their way."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Opcode

from ..host.host_dma import host_data_layout
from ..interfaces import Layouts
from .parser import QueryParser, outcome_layout
from .validator import checked_layout

__all__ = ["Executor", "pending_layout"]


def pending_layout(config: DeviceConfig) -> data.StructLayout:
    """A command whose results are to come, or which failed in pass 1 (``outcome``)."""
    return data.StructLayout({"lookup": 1, "qid": 3, "cid": 16, "batch": 16, "out_addr": config.bus.address_bits,
                              "outcome": outcome_layout()})


class Executor(wiring.Component):
    """Announces each checked command on ``pending``, in order, before anything of it comes out of ``dense`` or ``item``.

    A command that passed gets one ``executed`` outcome when its whole stream was sent. It is good unless the host changed
    the query between the passes or the bus failed: then the parser has completed the command with empty bags.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts(config)
        super().__init__({
            "i": In(stream.Signature(checked_layout(config))),
            "table_valid": In(1),
            "table": In(layouts.table_write),
            "host_req": Out(stream.Signature(layouts.prp_request)),
            "host_data": In(stream.Signature(host_data_layout(config.beat_bytes))),
            "dense": Out(stream.Signature(layouts.dense_element)),
            "item": Out(stream.Signature(layouts.lookup_item)),
            "pending": Out(stream.Signature(pending_layout(config))),
            "executed": Out(stream.Signature(outcome_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.parser = parser = QueryParser(self.config)
        connect(m, flipped(self.host_data), parser.host_data)
        connect(m, parser.dense, flipped(self.dense))
        connect(m, parser.item, flipped(self.item))
        connect(m, parser.result, flipped(self.executed))
        m.d.comb += [parser.table_valid.eq(self.table_valid), parser.table.eq(self.table)]

        cmd, outcome = self.i.payload.command, self.i.payload.outcome
        lookup = Signal()
        m.d.comb += lookup.eq(cmd.opcode == Opcode.LOOKUP)
        p, start = self.pending.payload, parser.start.payload
        m.d.comb += [
            p.lookup.eq(lookup), p.qid.eq(cmd.qid), p.cid.eq(cmd.cid), p.batch.eq(cmd.batch), p.out_addr.eq(cmd.out_addr),
            p.outcome.eq(outcome),
            start.words.eq(cmd.words), start.batch.eq(cmd.batch), start.tables.eq(cmd.tables), start.dense.eq(cmd.dense),
            start.weighted.eq(cmd.weighted), start.lookup.eq(lookup),
            self.host_req.payload.prp1.eq(cmd.prp1), self.host_req.payload.prp2.eq(cmd.prp2),
            self.host_req.payload.length.eq(cmd.words << 2),
        ]
        with m.FSM():
            with m.State("ANNOUNCE"):
                m.d.comb += self.pending.valid.eq(self.i.valid)
                with m.If(self.i.valid & self.pending.ready):
                    with m.If(outcome.status != 0):
                        m.d.comb += self.i.ready.eq(1)
                    with m.Else():
                        m.next = "START"
            with m.State("START"):  # waits here while the parser is still on the previous command
                m.d.comb += parser.start.valid.eq(1)
                with m.If(parser.start.ready):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.host_req.valid.eq(1)
                with m.If(self.host_req.ready):
                    m.d.comb += self.i.ready.eq(1)
                    m.next = "ANNOUNCE"
        return m
