"""Writes a run of 32-bit words to host memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import ADDR_BITS, MemWriteSignature

__all__ = ["BeatWriter"]

CHUNK = 16  # beats of one write request


class BeatWriter(wiring.Component):
    """``start``: beat-aligned byte address; then ``word``s up to ``last``, packed into beats (bytes beyond the last word are
    not written); then one ``done`` when memory has them all.

    A chunk is requested only when all its beats are here: pooled vectors come at the pace of the flash, and a request
    waiting for its data would hold the host bus against everyone else.
    """

    def __init__(self, config: DeviceConfig):
        self.beat_bytes = config.beat_bytes
        super().__init__({
            #: Byte address, beat-aligned.
            "start": In(stream.Signature(ADDR_BITS)),
            #: Up to ``last``.
            "word": In(stream.Signature(data.StructLayout({"value": 32, "last": 1}))),
            #: The memory has them all.
            "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
            #: Host memory.
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.beat_bytes // 4
        bus, word = self.host_write, self.word
        m.submodules.beats = beats = StreamFifo(bus.data.payload.shape(), 2 * CHUNK)
        active, complete, error = Signal(), Signal(), Signal()

        # -- pack; ``full`` is a beat ready for the FIFO
        lane = Signal(range(lanes))
        packed = Signal(bus.data.payload.shape(), reset_less=True)
        full = Signal()
        take = Signal()
        m.d.comb += [
            word.ready.eq(active & ~complete & (~full | beats.i.ready)),
            take.eq(word.valid & word.ready),
            beats.i.valid.eq(full),
            beats.i.payload.eq(packed),
        ]
        with m.If(full & beats.i.ready):
            m.d.sync += full.eq(0)
        with m.If(take):
            m.d.sync += [
                packed.data.word_select(lane, 32).eq(word.payload.value),
                lane.eq(lane + 1),
                packed.strb.eq(Mux(lane == 0, 0, packed.strb) | (0xF << (lane << 2))),
            ]
            with m.If(word.payload.last | (lane == lanes - 1)):
                m.d.sync += [
                    full.eq(1),
                    lane.eq(0),
                    complete.eq(word.payload.last),
                ]

        # -- request chunks
        pushed = beats.i.valid & beats.i.ready
        waiting = Signal(range(2 * CHUNK + 1))  # beats in the FIFO that no request covers
        granted = Signal(bits_for(2 * CHUNK))  # beats in the FIFO that a request covers
        asked = Signal(range(CHUNK + 1))
        outstanding = Signal(8)
        addr = Signal(ADDR_BITS)
        req = bus.req
        idle_req = ~req.valid | req.ready
        m.d.comb += asked.eq(Mux(waiting >= CHUNK, CHUNK, Mux(complete & ~full, waiting, 0)))
        ask = Signal()
        m.d.comb += ask.eq(idle_req & (asked != 0) & (outstanding != 255))
        with m.If(req.ready):
            m.d.sync += req.valid.eq(0)
        with m.If(ask):
            m.d.sync += [
                req.valid.eq(1),
                req.payload.addr.eq(addr),
                req.payload.beats.eq(asked),
                addr.eq(addr + asked * self.beat_bytes),
            ]
        sent = bus.data.valid & bus.data.ready
        m.d.comb += [
            bus.data.valid.eq(beats.o.valid & (granted != 0)),
            bus.data.payload.eq(beats.o.payload),
            beats.o.ready.eq(bus.data.ready & (granted != 0)),
            bus.done.ready.eq(1),
        ]
        m.d.sync += [
            waiting.eq(waiting + pushed - Mux(ask, asked, 0)),
            granted.eq(granted - sent + Mux(ask, asked, 0)),
            outstanding.eq(outstanding + ask - bus.done.valid),
            error.eq(error | (bus.done.valid & bus.done.payload.error)),
        ]

        # -- begin and end
        m.d.comb += [
            self.start.ready.eq(~active),
            self.done.payload.error.eq(error),
            self.done.valid.eq(active & complete & ~full & (waiting == 0) & (outstanding == 0)),
        ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                active.eq(1),
                addr.eq(self.start.payload),
            ]
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += [
                active.eq(0),
                complete.eq(0),
                error.eq(0),
            ]
        return m
