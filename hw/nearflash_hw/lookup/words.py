"""Cuts a host transfer into 32-bit words."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, index_bits

__all__ = ["WordUnpacker"]


class WordUnpacker(wiring.Component):
    """Beats of one host transfer in, its words out, one per cycle; latency 1. A transfer that fails ends with one word that
    is ``failed``."""

    def __init__(self, config: DeviceConfig):
        self.lanes = config.beat_bytes // 4
        super().__init__({
            #: The place of the transfer's last word within its last beat.
            "start": In(stream.Signature(index_bits(self.lanes))),
            #: One transfer for each ``start``.
            "i": In(stream.Signature(Layouts.of(config).host_data)),
            #: Where ``failed``: ``status`` (nvme.Status) is not 0, and ``word`` means nothing.
            "o": Out(stream.Signature(data.StructLayout({"word": 32, "last": 1, "failed": 1, "status": 11}))),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        busy = Signal()
        lane, final = Signal(range(self.lanes)), Signal(range(self.lanes), reset_less=True)
        load, ends, broken = Signal(), Signal(), Signal()
        m.d.comb += [
            self.start.ready.eq(~busy),
            load.eq(busy & i.valid & (~o.valid | o.ready)),
            broken.eq(i.payload.status != 0),
            ends.eq((i.payload.last & (lane == final)) | broken),
            i.ready.eq(load & (ends | (lane == self.lanes - 1))),
        ]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(load):
            m.d.sync += [
                o.valid.eq(1),
                o.payload.word.eq(i.payload.data.word_select(lane, 32)),
                o.payload.last.eq(ends),
                o.payload.failed.eq(broken),
                o.payload.status.eq(i.payload.status),
                lane.eq(Mux(ends, 0, lane + 1)),
                busy.eq(~ends),
            ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                busy.eq(1),
                final.eq(self.start.payload),
            ]
        return m
