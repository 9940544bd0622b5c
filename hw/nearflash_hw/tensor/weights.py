"""Weights on chip: fetched into one half of a buffer while the other feeds the array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from ..interfaces import bits_for, index_bits
from ..primitives.credit_fifo import CreditFifo
from ..primitives.memport import BEATS_BITS, MemReadSignature
from .plan import ADDRESS_BITS, conv_layout, tile_layout

__all__ = ["WeightStream"]

HALVES = 2
QUEUED = 4  # tiles whose weights may be asked for ahead
PIECE = 32  # beats of a request
UNDER_WAY = 3  # requests: what covers a memory's latency of 60 cycles, and lets a residual's single beats past


class WeightStream(wiring.Component):
    """For each ``tile``, the weights of its output blocks in beats on ``o``, in the order in which they lie in DRAM.

    Held (``plan.group`` blocks, which half the buffer holds): read once for all tiles of a group, while the group before is
    in use. Streamed: read for every tile, half a buffer at a time. ``error``: pulses when a read fails. A beat a cycle;
    a half is asked for when it is free, so the other covers the memory's latency, PIECE beats at a time and UNDER_WAY such
    pieces, so that other readers come between. What has arrived is given at once.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.beats = config.weight_bytes // HALVES // beat_bytes
        if self.beats >= 1 << BEATS_BITS:
            raise ValueError(f"weight_bytes = {config.weight_bytes}: must be below {HALVES * beat_bytes << BEATS_BITS}")
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            "tile": In(stream.Signature(tile_layout(config))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(8 * beat_bytes)),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan, tile = self.plan, self.tile.payload
        req, rsp = self.mem_read.req, self.mem_read.rsp
        count_bits = bits_for(self.beats)

        # -- ask for parts: a group, or half a buffer of the stream. ``sizes``: beats of a half; whether it is a tile's last
        sizes = [Signal(count_bits, name=f"size{h}") for h in range(HALVES)]
        lasts = [Signal(name=f"last{h}") for h in range(HALVES)]
        taken, filled = Signal(range(HALVES + 1)), Signal(range(HALVES + 1))
        ask_half, write_half, read_half = Signal(), Signal(), Signal()
        at, left, size = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(count_bits)
        rest, piece = Signal(count_bits), Signal(bits_for(PIECE))  # of the part
        begin, release = Signal(), Signal()
        asked, under_way = Signal(), Signal(bits_for(UNDER_WAY))
        passes = Signal(range(QUEUED + 1))  # tiles to feed
        group_ends = Signal(QUEUED)  # of these, oldest first
        enter, leave = Signal(), Signal()
        m.d.comb += [
            size.eq(Mux(left > self.beats, self.beats, left)),
            piece.eq(Mux(rest > PIECE, PIECE, rest)),
            req.payload.addr.eq(at),
            req.payload.beats.eq(piece),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    enter.eq(self.tile.valid & (passes != QUEUED)),
                    self.tile.ready.eq(enter),
                ]
                with m.If(enter):
                    m.d.sync += left.eq(tile.blocks * plan.block_beats)
                    with m.If(tile.first | plan.streamed):
                        m.d.sync += at.eq(plan.weights)
                    with m.If(tile.group_begin | plan.streamed):
                        m.next = "PART"
            with m.State("PART"):
                m.d.comb += begin.eq(taken != HALVES)
                m.d.sync += rest.eq(size)
                with m.If(begin):
                    m.d.sync += left.eq(left - size)
                    with m.Switch(ask_half):
                        for h in range(HALVES):
                            with m.Case(h):
                                m.d.sync += [
                                    sizes[h].eq(size),
                                    lasts[h].eq(left == size),
                                ]
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += [
                    req.valid.eq(under_way != UNDER_WAY),
                    asked.eq(req.valid & req.ready),
                ]
                with m.If(asked):
                    m.d.sync += [
                        at.eq(at + piece * self.beat_bytes),
                        rest.eq(rest - piece),
                    ]
                    with m.If(rest == piece):
                        m.d.sync += ask_half.eq(~ask_half)
                        m.next = "IDLE"
                        with m.If(left != 0):
                            m.next = "PART"

        # -- the queue of passes
        later = group_ends >> 1
        m.d.sync += [
            passes.eq(passes + enter - leave),
            group_ends.eq(Mux(leave, later, group_ends) | (Mux(enter, tile.group_end, 0) << (passes - leave)[:2])),
        ]

        # -- fill a half
        m.submodules.memory = memory = Memory(shape=8 * self.beat_bytes, depth=HALVES * self.beats, init=[])
        write, read = memory.write_port(), memory.read_port()
        place = index_bits(self.beats)
        fill = Signal(place)
        arrived = Signal()
        m.d.comb += [
            rsp.ready.eq(1),
            write.addr.eq(Cat(fill, write_half)),
            write.data.eq(rsp.payload.data),
            write.en.eq(rsp.valid),
            arrived.eq(rsp.valid & (fill == Mux(write_half, sizes[1], sizes[0]) - 1)),
            self.error.eq(rsp.valid & rsp.payload.error),
        ]
        with m.If(rsp.valid):
            m.d.sync += fill.eq(Mux(arrived, 0, fill + 1))
        m.d.sync += [
            taken.eq(taken + begin - release),
            under_way.eq(under_way + asked - (rsp.valid & rsp.payload.last)),
            filled.eq(filled + arrived - release),
            write_half.eq(write_half ^ arrived),
            read_half.eq(read_half ^ release),
        ]

        # -- play it
        m.submodules.out = out = CreditFifo(8 * self.beat_bytes, 8)
        m.d.comb += [
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
        ]
        number = Signal(place)
        go, part_end, came = Signal(), Signal(), Signal()
        half_size, half_last = Signal(count_bits), Signal()
        m.d.comb += [
            half_size.eq(Mux(read_half, sizes[1], sizes[0])),
            half_last.eq(Mux(read_half, lasts[1], lasts[0])),
            # with no part whole, the one to play is the one that fills
            go.eq(((filled != 0) | (number < fill)) & (passes != 0) & out.credit),
            part_end.eq(go & (number == half_size - 1)),
            leave.eq(part_end & (half_last | ~plan.streamed)),
            release.eq(part_end & (plan.streamed | group_ends[0])),
            out.spend.eq(go),
            read.addr.eq(Cat(number, read_half)),
            read.en.eq(go),
            out.push.eq(came),
            out.payload.eq(read.data),
        ]
        m.d.sync += came.eq(go)
        with m.If(go):
            m.d.sync += number.eq(Mux(part_end, 0, number + 1))
        return m
