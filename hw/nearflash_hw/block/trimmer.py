"""Unmaps the ranges of a dataset management command."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import Opcode, Status

from ..controller.map_cache import ERROR
from .layouts import BlockLayouts
from .range_list import RangeList

__all__ = ["Trimmer"]


class Trimmer(wiring.Component):
    """Takes the list of ``command`` in, from ``begin`` on (with ``lists``), from ``beat``; once it is whole (``fetched``)
    and good, ``listed`` pulses and the list is unmapped beside other commands (``busy``), block by block (``update``), and
    then answered (``completion``). ``fault``: LBA_OUT_OF_RANGE, or COMMAND_SIZE_LIMIT for ranges that together hold more
    than the device; nothing of them is unmapped. ``stop``: the command failed. A change that fails makes the completion's
    status WRITE_FAULT; the rest is unmapped all the same.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: Pulses: ``command`` begins.
            "begin": In(1),
            "command": In(lay.command),
            #: It has a list of ranges.
            "lists": In(1),
            #: The list is here, whole.
            "fetched": In(1),
            #: It failed.
            "stop": In(1),
            #: The list.
            "beat": In(stream.Signature(lay.data_bits)),
            #: Pulses: it goes on by itself.
            "listed": Out(1),
            #: It is being unmapped.
            "busy": Out(1),
            #: Not 0 for a cycle: nothing of it is unmapped.
            "fault": Out(11),
            #: Changes of the map.
            "update": Out(stream.Signature(lay.map_update)),
            "update_done": In(stream.Signature(ERROR)),
            #: All of it is unmapped.
            "completion": Out(stream.Signature(lay.outcome)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.ranges = ranges = RangeList(self.config)
        connect(m, flipped(self.beat), ranges.beat)
        here = Signal()  # the list is in, and nothing more of it is on its way
        count = Signal.like(ranges.count)  # other commands come while the list is walked
        out = self.completion.payload
        with m.If(ranges.start):
            m.d.sync += count.eq(self.command.count)
        m.d.comb += [
            ranges.start.eq(self.begin & (self.command.opcode == Opcode.DSM) & self.command.moves),
            ranges.count.eq(count),
            here.eq(self.lists & ~self.stop & ranges.stored & self.fetched),
            self.update.payload.lpn.eq(ranges.lpn.payload),
        ]
        with m.If(here & ranges.bad):
            m.d.comb += self.fault.eq(Status.LBA_OUT_OF_RANGE)
        with m.Elif(here & ranges.long):
            m.d.comb += self.fault.eq(Status.COMMAND_SIZE_LIMIT)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [
                    out.qid.eq(self.command.qid),
                    out.cid.eq(self.command.cid),
                    out.status.eq(0),
                ]
                with m.If(here & ~ranges.bad & ~ranges.long):
                    m.d.comb += self.listed.eq(1)
                    m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += [
                    ranges.walk.eq(1),
                    self.update.valid.eq(ranges.lpn.valid),
                    ranges.lpn.ready.eq(self.update.ready),
                ]
                with m.If(ranges.walked):
                    m.next = "ANSWER"
                with m.Elif(ranges.lpn.valid & self.update.ready):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.update_done.ready.eq(1)
                with m.If(self.update_done.valid):
                    with m.If(self.update_done.payload.error):
                        m.d.sync += out.status.eq(Status.WRITE_FAULT)
                    m.next = "WALK"
            with m.State("ANSWER"):
                m.d.comb += self.completion.valid.eq(1)
                with m.If(self.completion.ready):
                    m.next = "IDLE"
        return m
