"""Reads a PRP-described host buffer as one stream of beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..interfaces import Layouts
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .prp import PrpWalker

__all__ = ["HostReader", "host_data_layout"]


def host_data_layout(beat_bytes: int) -> data.StructLayout:
    return data.StructLayout({"data": beat_bytes * 8, "last": 1, "status": 11})


class HostReader(wiring.Component):
    """For each ``req`` {prp1, prp2, length} the ceil(length / beat) beats of the buffer on ``data``.

    ``last`` ends a transfer; its ``status`` is non-zero when a PRP entry was bad (the transfer then ends early) or the
    bus answered an error. Transfers in order; up to four runs are requested ahead of their data.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts(config)
        super().__init__({
            "req": In(stream.Signature(layouts.prp_request)),
            "data": Out(stream.Signature(host_data_layout(config.beat_bytes))),
            "list_read": Out(MemReadSignature(config.beat_bytes)),
            "data_read": Out(MemReadSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        beat = self.config.beat_bytes
        m.submodules.walker = walker = PrpWalker(self.config)
        meta_layout = data.StructLayout({"last": 1, "status": 11})
        m.submodules.meta = meta = StreamFifo(meta_layout, 4)
        connect(m, flipped(self.req), walker.req)
        connect(m, walker.mem_read, flipped(self.list_read))

        run, rd, out = walker.run, self.data_read, self.data
        is_data = run.payload.status == 0
        # A run goes to the memory port and to the order FIFO in the same cycle, so neither waits on the other's valid.
        m.d.comb += [
            rd.req.valid.eq(run.valid & is_data & meta.i.ready),
            rd.req.payload.addr.eq(run.payload.addr),
            rd.req.payload.beats.eq((run.payload.bytes + beat - 1) >> (beat - 1).bit_length()),
            meta.i.payload.last.eq(run.payload.last),
            meta.i.payload.status.eq(run.payload.status),
            meta.i.valid.eq(run.valid & (rd.req.ready | ~is_data)),
            run.ready.eq(meta.i.ready & (rd.req.ready | ~is_data)),
        ]
        bad = Signal()  # a beat of this transfer carried a bus error
        with m.If(meta.o.payload.status != 0):
            m.d.comb += [
                out.valid.eq(meta.o.valid), out.payload.last.eq(1), out.payload.status.eq(meta.o.payload.status),
                meta.o.ready.eq(out.ready)]
        with m.Else():
            ends = rd.rsp.payload.last & meta.o.payload.last
            m.d.comb += [
                out.valid.eq(rd.rsp.valid & meta.o.valid),
                out.payload.data.eq(rd.rsp.payload.data),
                out.payload.last.eq(ends),
                out.payload.status.eq(Mux(ends & (bad | rd.rsp.payload.error), Status.DATA_TRANSFER_ERROR, 0)),
                rd.rsp.ready.eq(out.ready & meta.o.valid),
                meta.o.ready.eq(out.ready & rd.rsp.valid & rd.rsp.payload.last),
            ]
        with m.If(out.valid & out.ready):
            m.d.sync += bad.eq(~out.payload.last & (bad | (rd.rsp.valid & rd.rsp.payload.error)))
        return m
