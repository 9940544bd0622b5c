"""Residuals from DRAM, in the order in which the epilogue wants them."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from ..primitives.credit_fifo import CreditFifo
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .epilogue import CODE_BITS
from .places import place_layout

__all__ = ["ResidualReader"]

DEPTH = 32  # places asked for ahead: what covers a memory's latency


class ResidualReader(wiring.Component):
    """The ``lanes`` channels at each ``place``, int8 or, ``wide``, int16, sign-extended on ``o``; what doesn't exist is
    undefined.

    Asks for what it has room for. ``error``: pulses when a read fails. A place a cycle of one beat.
    """

    def __init__(self, lanes: int, beat_bytes: int):
        self.lanes, self.beat_bytes = lanes, beat_bytes
        super().__init__({
            "wide": In(1),
            "place": In(stream.Signature(place_layout(lanes))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat, lanes = self.beat_bytes, self.lanes
        shift = (beat - 1).bit_length()
        req, rsp, place = self.mem_read.req, self.mem_read.rsp, self.place.payload
        most = max(1, 2 * lanes // beat)
        m.submodules.out = out = CreditFifo(self.o.payload.shape(), DEPTH)
        # what was asked for: bytes into the beat; whether there is anything to come
        m.submodules.asked = asked = StreamFifo(data.StructLayout({"offset": shift, "exists": 1}), DEPTH)
        count = Mux(self.wide, place.count << 1, place.count)
        exists = place.count != 0
        ask = Signal()
        m.d.comb += [
            req.payload.addr.eq(place.address & ~(beat - 1)),
            req.payload.beats.eq((count + beat - 1) >> shift),
            req.valid.eq(self.place.valid & exists & out.credit & asked.i.ready),
            ask.eq(self.place.valid & out.credit & asked.i.ready & (req.ready | ~exists)),
            self.place.ready.eq(ask),
            out.spend.eq(ask),
            asked.i.valid.eq(ask),
            asked.i.payload.offset.eq(place.address[:shift]),
            asked.i.payload.exists.eq(exists),
        ]
        number = Signal(bits_for(most))
        before = Signal(8 * beat * most, reset_less=True)  # the place's beats, this one in its place
        whole, beat_here, arrived = Signal(8 * beat * most), Signal(), Signal()
        m.d.comb += [
            rsp.ready.eq(asked.o.valid & asked.o.payload.exists),
            beat_here.eq(rsp.valid & rsp.ready),
            whole.eq(before),
            whole.word_select(number, 8 * beat).eq(rsp.payload.data),
            arrived.eq((beat_here & rsp.payload.last) | (asked.o.valid & ~asked.o.payload.exists)),
            asked.o.ready.eq(arrived),
            out.push.eq(arrived),
            self.error.eq(beat_here & rsp.payload.error),
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
        ]
        with m.If(beat_here):
            m.d.sync += [
                before.eq(whole),
                number.eq(Mux(rsp.payload.last, 0, number + 1)),
            ]
        # ``lanes`` elements are whole beats, or a part of one that lies within it
        placed = whole >> (asked.o.payload.offset << 3) if lanes < beat else whole
        for k in range(lanes):
            m.d.comb += out.payload[k].eq(Mux(self.wide, placed[16 * k:16 * k + 16].as_signed(),
                                             placed[8 * k:8 * k + 8].as_signed()))
        return m
