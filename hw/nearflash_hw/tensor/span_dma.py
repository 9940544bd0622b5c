"""Contiguous bytes between memory and a stream of beats."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import ADDR_BITS, MemReadSignature, MemWriteSignature, Request

__all__ = ["SpanReader", "SpanWriter"]

PIECE = 16  # beats of a request
ROOM = 64  # beats asked for or waiting
COUNT_BITS = 32  # of a span's beats


class SpanReader(wiring.Component):
    """For each ``start``, its ``beats`` (at least 1) from ``address`` on, on ``o``; ``last`` ends them, ``error`` marks one
    that could not be read. Asks only for what there is room for here."""

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(stream.Signature(data.StructLayout({"address": ADDR_BITS, "beats": COUNT_BITS}))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(data.StructLayout({"data": 8 * beat_bytes, "last": 1, "error": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        req, rsp, start = self.mem_read.req, self.mem_read.rsp, self.start.payload
        m.submodules.beats = beats = StreamFifo(data.StructLayout({"data": 8 * self.beat_bytes, "error": 1}), ROOM)
        address, ask, due = Signal(ADDR_BITS), Signal(COUNT_BITS), Signal(COUNT_BITS)
        room, size = Signal(bits_for(ROOM), init=ROOM), Signal(bits_for(PIECE))
        asked, taken = Signal(), Signal()
        m.d.comb += [
            size.eq(Mux(ask > PIECE, PIECE, ask)),
            req.valid.eq((ask != 0) & (room >= PIECE)),
            req.payload.addr.eq(address),
            req.payload.beats.eq(size),
            asked.eq(req.valid & req.ready),
            rsp.ready.eq(1),
            beats.i.valid.eq(rsp.valid),
            beats.i.payload.data.eq(rsp.payload.data),
            beats.i.payload.error.eq(rsp.payload.error),
            self.o.valid.eq(beats.o.valid),
            self.o.payload.data.eq(beats.o.payload.data),
            self.o.payload.error.eq(beats.o.payload.error),
            self.o.payload.last.eq(due == 1),
            beats.o.ready.eq(self.o.ready),
            taken.eq(self.o.valid & self.o.ready),
            self.start.ready.eq(due == 0),
        ]
        m.d.sync += room.eq(room + taken - Mux(asked, size, 0))
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                address.eq(start.address),
                ask.eq(start.beats),
                due.eq(start.beats),
            ]
        with m.Else():
            m.d.sync += [
                address.eq(Mux(asked, address + PIECE * self.beat_bytes, address)),
                ask.eq(Mux(asked, ask - size, ask)),
                due.eq(due - taken),
            ]
        return m


class SpanWriter(wiring.Component):
    """After each ``start`` (an address) the beats of ``i`` up to ``last``, side by side; then ``done``, once memory has
    them.

    A beat with ``drop`` is not written. A request is made only when all its beats are here, so a slow source never holds up
    the other writers.
    """

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(stream.Signature(ADDR_BITS)),
            "i": In(stream.Signature(data.StructLayout({"data": 8 * beat_bytes, "last": 1, "drop": 1}))),
            "mem_write": Out(MemWriteSignature(beat_bytes)),
            "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        bus, beat = self.mem_write, self.i.payload
        m.submodules.beats = beats = StreamFifo(8 * self.beat_bytes, ROOM)
        m.submodules.requests = requests = StreamFifo(Request(), ROOM // PIECE)
        address = Signal(ADDR_BITS)
        gathered, count = Signal(bits_for(PIECE)), Signal(bits_for(PIECE))
        under_way = Signal(bits_for(ROOM))
        active, ended, error = Signal(), Signal(), Signal()
        take, put, close = Signal(), Signal(), Signal()
        m.d.comb += [
            self.start.ready.eq(~active),
            take.eq(active & ~ended & self.i.valid & beats.i.ready & requests.i.ready & (under_way != ROOM)),
            self.i.ready.eq(take),
            put.eq(take & ~beat.drop),
            count.eq(gathered + put),
            close.eq(take & (count != 0) & (beat.last | (count == PIECE))),
            beats.i.valid.eq(put),
            beats.i.payload.eq(beat.data),
            requests.i.valid.eq(close),
            requests.i.payload.addr.eq(address),
            requests.i.payload.beats.eq(count),
            bus.req.valid.eq(requests.o.valid),
            bus.req.payload.eq(requests.o.payload),
            requests.o.ready.eq(bus.req.ready),
            bus.data.valid.eq(beats.o.valid),
            bus.data.payload.data.eq(beats.o.payload),
            bus.data.payload.strb.eq(~0),
            beats.o.ready.eq(bus.data.ready),
            bus.done.ready.eq(1),
            self.done.valid.eq(ended & (under_way == 0)),
            self.done.payload.error.eq(error),
        ]
        m.d.sync += [
            gathered.eq(Mux(close, 0, count)),
            under_way.eq(under_way + close - bus.done.valid),
            error.eq(error | (bus.done.valid & bus.done.payload.error)),
        ]
        with m.If(close):
            m.d.sync += address.eq(address + PIECE * self.beat_bytes)
        with m.If(take & beat.last):
            m.d.sync += ended.eq(1)
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                active.eq(1),
                address.eq(self.start.payload),
            ]
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += [
                active.eq(0),
                ended.eq(0),
                error.eq(0),
            ]
        return m
