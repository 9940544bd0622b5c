"""Cuts a transfer's runs of host memory at logical block boundaries."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..interfaces import Layouts, bits_for

__all__ = ["PieceCutter"]


class PieceCutter(wiring.Component):
    """``run`` (:attr:`Layouts.prp_run`) in, ``piece`` out, in order; a transfer starts at a block boundary. A run that is
    not a whole number of beats counts its last beat. Latency 2 cycles, one piece every 3 cycles."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: Of host memory, as the walker gives them.
            "run": In(stream.Signature(Layouts.of(config).prp_run)),
            #: Of one logical block each.
            "piece": Out(stream.Signature(Layouts.of(config).piece)),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        shift = log2(c.beat_bytes)
        out = Signal(Layouts.of(c).piece)
        left = Signal.like(out.beats)  # of the run
        room = Signal(bits_for(c.page_beats), init=c.page_beats)  # in the block
        last_run = Signal()
        run = self.run
        m.d.comb += self.piece.payload.eq(out)
        with m.FSM():
            with m.State("RUN"):
                m.d.comb += run.ready.eq(1)
                m.d.sync += [
                    out.addr.eq(run.payload.addr),
                    left.eq((run.payload.bytes + c.beat_bytes - 1) >> shift),
                    out.status.eq(run.payload.status),
                    last_run.eq(run.payload.last),
                ]
                with m.If(run.valid):
                    m.next = "CUT"
            with m.State("CUT"):
                fits = left <= room
                m.d.sync += [
                    out.beats.eq(Mux(fits, left, room)),
                    out.page_end.eq(left >= room),
                    out.last.eq(last_run & fits),
                ]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.piece.valid.eq(1)
                with m.If(self.piece.ready):
                    m.d.sync += [
                        out.addr.eq(out.addr + (out.beats << shift)),
                        left.eq(left - out.beats),
                        room.eq(Mux(out.page_end | out.last, c.page_beats, room - out.beats)),
                    ]
                    m.next = "CUT"
                    with m.If(out.last | (left == out.beats)):
                        m.next = "RUN"
        return m
