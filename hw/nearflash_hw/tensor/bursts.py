"""Tensors from DRAM and to it beat by beat, in bursts, for operators that stream."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .plan import ADDRESS_BITS, SIZE_BITS

__all__ = ["BurstReader", "BurstWriter", "TensorRows", "run_layout"]

BURST = 16  # beats of a request: a client is granted one every other cycle, and long ones hold up the others
DEPTH = 64  # beats asked for ahead: what covers a memory's latency
RUN_BITS = 24  # 2**16 pixels of 256 beats
UNDER_WAY = 255  # requests that memory has not answered


def run_layout() -> data.StructLayout:
    """``beats`` (1 or more) from byte ``address`` on."""
    return data.StructLayout({"address": ADDRESS_BITS, "beats": RUN_BITS})


class TensorRows(wiring.Component):
    """``start``: the runs of a tensor that lies at ``at``, ``height`` rows of ``width`` pixels of ``pixel`` beats, all
    steady from two cycles before until the last run is taken."""

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(1),
            "at": In(ADDRESS_BITS),
            "height": In(SIZE_BITS),
            "width": In(SIZE_BITS),
            "pixel": In(SIZE_BITS),
            "o": Out(stream.Signature(run_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        run, left = self.o.payload, Signal(SIZE_BITS)
        m.d.sync += run.beats.eq(self.width * self.pixel)
        m.d.comb += self.o.valid.eq(left != 0)
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.height),
                run.address.eq(self.at),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [
                left.eq(left - 1),
                run.address.eq(run.address + run.beats * self.beat_bytes),
            ]
        return m


class BurstReader(wiring.Component):
    """The beats of each ``run``, one after the other, on ``o``: a beat a cycle, also across runs of BURST beats.

    Asks for what it has room for. ``error``: pulses when a read fails.
    """

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "run": In(stream.Signature(run_layout())),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(8 * beat_bytes)),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        req, rsp = self.mem_read.req, self.mem_read.rsp
        m.submodules.beats = beats = StreamFifo(8 * self.beat_bytes, DEPTH)
        active = Signal()
        address, left = Signal(ADDRESS_BITS, reset_less=True), Signal(RUN_BITS, reset_less=True)
        room, enough = Signal(bits_for(DEPTH), init=DEPTH), Signal(init=1)
        burst, last, ask, taken, room_next = Signal(range(BURST + 1)), Signal(), Signal(), Signal(), Signal.like(room)
        m.d.comb += [
            last.eq(left <= BURST),
            burst.eq(Mux(last, left, BURST)),
            req.payload.addr.eq(address),
            req.payload.beats.eq(burst),
            req.valid.eq(active & enough),
            ask.eq(req.valid & req.ready),
            self.run.ready.eq(~active | (ask & last)),
            rsp.ready.eq(1),
            beats.i.valid.eq(rsp.valid),
            beats.i.payload.eq(rsp.payload.data),
            self.error.eq(rsp.valid & rsp.payload.error),
            self.o.valid.eq(beats.o.valid),
            self.o.payload.eq(beats.o.payload),
            beats.o.ready.eq(self.o.ready),
            taken.eq(beats.o.valid & beats.o.ready),
            room_next.eq(room + taken - Mux(ask, burst, 0)),
        ]
        m.d.sync += [
            room.eq(room_next),
            enough.eq(room_next >= BURST),
        ]
        with m.If(ask):
            m.d.sync += [
                address.eq(address + BURST * self.beat_bytes),
                left.eq(left - BURST),
            ]
        with m.If(self.run.ready):
            m.d.sync += [
                active.eq(self.run.valid),
                address.eq(self.run.payload.address),
                left.eq(self.run.payload.beats),
            ]
        return m


class BurstWriter(wiring.Component):
    """``start``: writes the beats ``i`` from ``address`` on, up to the one with ``last``; then ``done``, once memory has
    all: whether a write failed, or ``failed`` pulsed since the last ``done``.

    A request is made once all its beats are here, so the bus never waits for an operator. A beat a cycle.
    """

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(1),
            "address": In(ADDRESS_BITS),
            "i": In(stream.Signature(data.StructLayout({"data": 8 * beat_bytes, "last": 1}))),
            "failed": In(1),
            "mem_write": Out(MemWriteSignature(beat_bytes)),
            "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.mem_write
        m.submodules.beats = beats = StreamFifo(8 * self.beat_bytes, 2 * BURST)
        m.submodules.requests = requests = StreamFifo(bus.req.payload.shape(), 2)
        address = Signal(ADDRESS_BITS, reset_less=True)
        waiting, granted = Signal(bits_for(2 * BURST)), Signal(bits_for(2 * BURST))  # beats here, without and with a request
        under_way = Signal(bits_for(UNDER_WAY))
        ended, error = Signal(), Signal()
        put, ask, burst, sent = Signal(), Signal(), Signal(range(BURST + 1)), Signal()
        m.d.comb += [
            beats.i.valid.eq(self.i.valid & ~ended),
            beats.i.payload.eq(self.i.payload.data),
            self.i.ready.eq(beats.i.ready & ~ended),
            put.eq(self.i.valid & self.i.ready),
            burst.eq(Mux(waiting >= BURST, BURST, waiting)),
            ask.eq(((waiting >= BURST) | (ended & (waiting != 0))) & requests.i.ready & (under_way != UNDER_WAY)),
            requests.i.valid.eq(ask),
            requests.i.payload.addr.eq(address),
            requests.i.payload.beats.eq(burst),
            bus.req.payload.eq(requests.o.payload),
            bus.req.valid.eq(requests.o.valid),
            requests.o.ready.eq(bus.req.ready),
            bus.data.valid.eq(beats.o.valid & (granted != 0)),
            bus.data.payload.data.eq(beats.o.payload),
            bus.data.payload.strb.eq(~0),
            beats.o.ready.eq(bus.data.ready & (granted != 0)),
            sent.eq(bus.data.valid & bus.data.ready),
            bus.done.ready.eq(1),
            self.done.valid.eq(ended & (waiting == 0) & (granted == 0) & (under_way == 0)),
            self.done.payload.error.eq(error),
        ]
        m.d.sync += [
            waiting.eq(waiting + put - Mux(ask, burst, 0)),
            granted.eq(granted - sent + Mux(ask, burst, 0)),
            under_way.eq(under_way + ask - bus.done.valid),
            error.eq(error | self.failed | (bus.done.valid & bus.done.payload.error)),
        ]
        with m.If(self.start):
            m.d.sync += address.eq(self.address)
        with m.Elif(ask):
            m.d.sync += address.eq(address + BURST * self.beat_bytes)
        with m.If(put & self.i.payload.last):
            m.d.sync += ended.eq(1)
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += [
                ended.eq(0),
                error.eq(0),
            ]
        return m
