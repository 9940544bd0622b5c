"""Reads a PRP-described host buffer as one stream of beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.nvme import HOST_PAGE

from ..interfaces import Layouts, bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from ..primitives.register_slice import RegisterSlice
from .prp import PrpWalker

__all__ = ["HostReader"]

ROOM = 64  # beats requested and not yet taken, at most
PIECE = 16  # beats of one request


class HostReader(wiring.Component):
    """For each ``req`` {prp1, prp2, length} the ceil(length / beat) beats of the buffer on ``data``.

    ``last`` ends a transfer; its ``status`` is non-zero when a PRP entry was bad (the transfer then ends early) or the
    bus answered an error. Transfers in order. Data is requested in pieces, and only where there is room for it here: a
    user that is slow to take ``data`` never holds up other readers of the host bus. Latency: 3 cycles from ``req`` to
    ``data_read.req``, 3 from ``rsp`` to ``data``; a beat every cycle, while the bus answers within ROOM - PIECE cycles.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: A transfer.
            "req": In(stream.Signature(layouts.prp_request)),
            #: Its beats; those of the next one follow.
            "data": Out(stream.Signature(layouts.host_data)),
            #: PRP lists.
            "list_read": Out(MemReadSignature(config.beat_bytes)),
            #: The buffers.
            "data_read": Out(MemReadSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        beat = self.config.beat_bytes
        shift = (beat - 1).bit_length()
        m.submodules.walker = walker = PrpWalker(self.config)
        meta_layout = data.StructLayout({"last": 1, "status": 11})
        m.submodules.meta = meta = StreamFifo(meta_layout, ROOM // PIECE + 1)
        m.submodules.beats = beats = StreamFifo(data.StructLayout({"data": beat * 8, "last": 1, "error": 1}), ROOM)
        connect(m, flipped(self.req), walker.req)
        connect(m, walker.mem_read, flipped(self.list_read))

        # -- requests
        m.submodules.out = slice_ = RegisterSlice(Layouts.of(self.config).host_data)
        connect(m, slice_.o, flipped(self.data))
        run, rd, out = walker.run, self.data_read, slice_.i
        addr = Signal.like(rd.req.payload.addr, reset_less=True)
        left = Signal(bits_for(HOST_PAGE // beat))
        ends_transfer = Signal()
        room = Signal(bits_for(ROOM), init=ROOM)
        final = Signal()
        size = Signal(bits_for(PIECE))
        asked, taken = Signal(), Signal()
        m.d.comb += [
            final.eq(left <= PIECE),
            size.eq(Mux(final, left, PIECE)),
            rd.req.payload.addr.eq(addr),
            rd.req.payload.beats.eq(size),
            asked.eq(rd.req.valid & rd.req.ready),
            taken.eq(beats.o.valid & beats.o.ready),
        ]
        m.d.sync += room.eq(room + taken - Mux(asked, size, 0))
        with m.FSM():
            with m.State("RUN"):
                m.d.sync += [
                    addr.eq(run.payload.addr),
                    left.eq((run.payload.bytes + beat - 1) >> shift),
                    ends_transfer.eq(run.payload.last),
                ]
                with m.If(run.payload.status != 0):
                    m.d.comb += [
                        meta.i.valid.eq(run.valid),
                        meta.i.payload.last.eq(1),
                        meta.i.payload.status.eq(run.payload.status),
                        run.ready.eq(meta.i.ready),
                    ]
                with m.Else():
                    m.d.comb += run.ready.eq(1)
                    with m.If(run.valid):
                        m.next = "PIECES"
            with m.State("PIECES"):
                # The request and its entry in the order FIFO go in the same cycle: neither may wait on the other's valid.
                m.d.comb += [
                    rd.req.valid.eq((room >= PIECE) & meta.i.ready),
                    meta.i.valid.eq(asked),
                    meta.i.payload.last.eq(ends_transfer & final),
                ]
                with m.If(asked):
                    m.d.sync += [
                        addr.eq(addr + PIECE * beat),
                        left.eq(left - size),
                    ]
                    with m.If(final):
                        m.next = "RUN"

        # -- data
        m.d.comb += [
            rd.rsp.ready.eq(1),
            beats.i.valid.eq(rd.rsp.valid),
            beats.i.payload.data.eq(rd.rsp.payload.data),
            beats.i.payload.last.eq(rd.rsp.payload.last),
            beats.i.payload.error.eq(rd.rsp.payload.error),
        ]
        word = beats.o.payload
        bad = Signal()  # a beat of this transfer carried a bus error
        with m.If(meta.o.payload.status != 0):
            m.d.comb += [
                out.valid.eq(meta.o.valid),
                out.payload.last.eq(1),
                out.payload.status.eq(meta.o.payload.status),
                meta.o.ready.eq(out.ready),
            ]
        with m.Else():
            ends = word.last & meta.o.payload.last
            m.d.comb += [
                out.valid.eq(beats.o.valid & meta.o.valid),
                out.payload.data.eq(word.data),
                out.payload.last.eq(ends),
                out.payload.status.eq(Mux(ends & (bad | word.error), Status.DATA_TRANSFER_ERROR, 0)),
                beats.o.ready.eq(out.ready & meta.o.valid),
                meta.o.ready.eq(out.ready & beats.o.valid & word.last),
            ]
        with m.If(out.valid & out.ready):
            m.d.sync += bad.eq(~out.payload.last & (bad | (beats.o.valid & word.error)))
        return m
