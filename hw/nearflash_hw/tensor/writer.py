"""Codes to DRAM, each to its place."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemWriteSignature
from ..primitives.register_slice import RegisterSlice
from .epilogue import CODE_BITS
from .places import place_layout

__all__ = ["CodeWriter"]

UNDER_WAY = 255  # requests that memory has not answered


class CodeWriter(wiring.Component):
    """Writes a beat of ``codes`` to each ``place``, as int8 or, ``wide``, int16; behind a pixel's last channel zeros up to a
    whole beat. A place without channels takes its codes and writes nothing.

    ``done``: after the descriptor's ``end``, once memory has everything: whether a write failed, or ``failed`` pulsed since
    the last ``done``. A place a cycle of one beat, every other cycle of two.
    """

    def __init__(self, lanes: int, beat_bytes: int):
        self.lanes, self.beat_bytes = lanes, beat_bytes
        super().__init__({
            "wide": In(1),
            "failed": In(1),
            "place": In(stream.Signature(place_layout(lanes))),
            "codes": In(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
            "mem_write": Out(MemWriteSignature(beat_bytes)),
            "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        beat, lanes, bus = self.beat_bytes, self.lanes, self.mem_write
        shift = (beat - 1).bit_length()
        # how many channels a place has is a subtraction and comparisons, and which bytes that makes a shifter
        m.submodules.places = places = RegisterSlice(place_layout(lanes), "through")
        connect(m, flipped(self.place), places.i)
        place, codes = places.o.payload, self.codes.payload
        most = max(1, 2 * lanes // beat)  # beats of a place

        # -- a place with its codes, as bytes from the begin of its first beat on
        unit = data.StructLayout({"data": 8 * beat * most, "strb": beat, "beats": bits_for(most)})
        m.submodules.units = units = StreamFifo(unit, 4)
        m.submodules.requests = requests = StreamFifo(bus.req.payload.shape(), 4)
        u = units.i.payload
        kept = [Mux(k < place.count, codes[k], 0) for k in range(lanes)]
        raw = Mux(self.wide, Cat(kept), Cat(*(v[:8] for v in kept), 0))
        used = Mux(self.wide, Cat(*((k < place.count).replicate(2) for k in range(lanes))),
                   Cat(*(k < place.count for k in range(lanes))))
        bytes_used = Signal(max(2 * lanes, beat))
        m.d.comb += bytes_used.eq(used)
        offset = place.address[:shift]
        m.d.comb += [
            u.data.eq(raw << (offset << 3)),
            # a place of whole beats needs no strobes: codes that don't exist are zeros
            u.strb.eq(Mux(place.last, ~0, bytes_used[:beat]) << offset if lanes < beat else ~0),
            u.beats.eq(sum(bytes_used[k * beat] for k in range(most))),
            requests.i.payload.addr.eq(place.address & ~(beat - 1)),
            requests.i.payload.beats.eq(u.beats),
        ]
        under_way = Signal(bits_for(UNDER_WAY))
        ended, error = Signal(), Signal()
        take, sent, answered = Signal(), Signal(), Signal()
        exists = place.count != 0
        m.d.comb += [
            take.eq(places.o.valid & self.codes.valid & units.i.ready & requests.i.ready & ~ended
                    & (under_way != UNDER_WAY)),
            places.o.ready.eq(take),
            self.codes.ready.eq(take),
            sent.eq(take & exists),
            units.i.valid.eq(sent),
            requests.i.valid.eq(sent),
            bus.req.payload.eq(requests.o.payload),
            bus.req.valid.eq(requests.o.valid),
            requests.o.ready.eq(bus.req.ready),
        ]

        # -- its beats
        number = Signal(range(max(2, most)))
        out = units.o.payload
        m.d.comb += [
            bus.data.valid.eq(units.o.valid),
            bus.data.payload.data.eq(out.data.word_select(number, 8 * beat)),
            bus.data.payload.strb.eq(out.strb),
            units.o.ready.eq(bus.data.ready & (number == out.beats - 1)),
        ]
        with m.If(bus.data.valid & bus.data.ready):
            m.d.sync += number.eq(Mux(units.o.ready, 0, number + 1))

        # -- the end
        m.d.comb += [
            bus.done.ready.eq(1),
            answered.eq(bus.done.valid),
            self.done.valid.eq(ended & (under_way == 0)),
            self.done.payload.error.eq(error),
        ]
        m.d.sync += [
            under_way.eq(under_way + sent - answered),
            error.eq(error | self.failed | (answered & bus.done.payload.error)),
        ]
        with m.If(take & place.end):
            m.d.sync += ended.eq(1)
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += [
                ended.eq(0),
                error.eq(0),
            ]
        return m
