"""Leads one WRITE, FLUSH or list of ranges at a time through its steps."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import Opcode, Status

from ..controller.map_cache import ERROR
from .layouts import BlockLayouts

__all__ = ["FAULTS", "WriteControl"]

FAULTS = 4  # components that may fail a command


class WriteControl(wiring.Component):
    """Takes a ``command`` and holds it in ``current`` until its ``completion`` was taken, or, for a list of ranges that is
    ``listed``, until the list goes on by itself.

    ``begin``: pulse, everything of the command before is over. ``writes`` or ``lists`` (levels) while it runs; it ends once
    its host memory is ``fetched`` and, of a WRITE, no page is ``held``. The first of ``fault`` (a nonzero status for a
    cycle) is its status and raises ``stop``. FLUSH: everything earlier is complete, so it only syncs the FTL.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: WRITE, FLUSH and lists of ranges, in order.
            "command": In(stream.Signature(lay.command)),
            #: The one that runs.
            "current": Out(lay.command),
            #: Pulses: everything of the one before is over.
            "begin": Out(1),
            #: It is a WRITE.
            "writes": Out(1),
            #: It has a list of ranges.
            "lists": Out(1),
            #: It failed.
            "stop": Out(1),
            #: All of its host memory is here.
            "fetched": In(1),
            #: A page of it is in a slot.
            "held": In(1),
            #: Its list goes on by itself.
            "listed": In(1),
            #: Of every component: not 0 for a cycle.
            "fault": In(11).array(FAULTS),
            #: Of FLUSH.
            "sync": Out(stream.Signature(1)),
            "sync_done": In(stream.Signature(ERROR)),
            #: One per command, but for those ``listed``.
            "completion": Out(stream.Signature(lay.outcome)),
        })

    def elaborate(self, platform):
        m = Module()
        current, status = self.current, Signal(11)
        m.d.comb += [
            self.stop.eq(status != 0),
            self.completion.payload.qid.eq(current.qid),
            self.completion.payload.cid.eq(current.cid),
            self.completion.payload.status.eq(status),
        ]
        with m.If(~self.stop):
            for fault in self.fault:
                with m.If(fault != 0):
                    m.d.sync += status.eq(fault)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [
                    current.eq(self.command.payload),
                    status.eq(0),
                ]
                with m.If(self.command.valid):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += self.begin.eq(1)
                with m.Switch(current.opcode):
                    with m.Case(Opcode.WRITE):
                        m.next = "WRITE"
                    with m.Case(Opcode.DSM):
                        m.next = "COMPLETE"  # only hints
                        with m.If(current.moves):
                            m.next = "LIST"
                    with m.Case(Opcode.FLUSH):
                        m.next = "SYNC"
                    with m.Default():
                        m.d.sync += status.eq(Status.INVALID_OPCODE)
                        m.next = "COMPLETE"
            with m.State("WRITE"):
                m.d.comb += self.writes.eq(1)
                with m.If(self.fetched & ~self.held):
                    m.next = "COMPLETE"
            with m.State("LIST"):
                m.d.comb += self.lists.eq(1)
                with m.If(self.listed):
                    m.next = "IDLE"
                with m.Elif(self.fetched & self.stop):
                    m.next = "COMPLETE"
            with m.State("SYNC"):
                m.d.comb += self.sync.valid.eq(1)
                with m.If(self.sync.ready):
                    m.next = "SYNCED"
            with m.State("SYNCED"):
                m.d.comb += self.sync_done.ready.eq(1)
                with m.If(self.sync_done.valid):
                    with m.If(self.sync_done.payload.error):
                        m.d.sync += status.eq(Status.WRITE_FAULT)
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += self.completion.valid.eq(1)
                with m.If(self.completion.ready):
                    m.next = "IDLE"
        return m
