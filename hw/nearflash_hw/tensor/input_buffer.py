"""Tiles of the input on chip: fetched from DRAM into one half while the array reads the other."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from ..interfaces import index_bits
from ..primitives.fifo import StreamFifo
from ..primitives.memport import BEATS_BITS, MemReadSignature
from .plan import SIZE_BITS, conv_layout, half_words, tile_layout

__all__ = ["InputTiles", "read_layout"]

HALVES = 2


def read_layout(config: TensorConfig) -> data.StructLayout:
    """With ``en``: the word at ``address`` of the oldest tile's half."""
    return data.StructLayout({"en": 1, "address": index_bits(half_words(config))})


class InputTiles(wiring.Component):
    """Fetches what a ``tile`` sees of the input, row by row, pixels side by side in words of ``columns`` bytes: word
    ``line * row + words * column + channel block`` of its half. What is padding is neither fetched nor written.

    A pixel begins with a word; what lies beyond its channels in the last one is undefined. A tile is asked for only when
    its half is free. ``available``: the oldest tile is whole. ``read``: gives its word ``address`` as ``data`` in the
    next cycle. ``release``: the tile is done with, its last ``read`` may be in the same cycle; whether the next one is
    available shows in the next cycle. ``error``: pulses when a read fails. A row costs a cycle more than its beats.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        if config.columns % beat_bytes:
            raise ValueError(f"columns = {config.columns}: must be a multiple of beat_bytes ({beat_bytes})")
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            "tile": In(stream.Signature(tile_layout(config))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "available": Out(1),
            "read": In(read_layout(config)),
            "data": Out(8 * config.columns),
            "release": In(1),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan, tile = self.plan, self.tile.payload
        words, beat = half_words(self.config), self.beat_bytes
        beat_shift = (beat - 1).bit_length()
        place = index_bits(words)
        run = data.StructLayout({"word": place, "columns": SIZE_BITS, "last": 1})
        m.submodules.runs = runs = StreamFifo(run, 8)
        req = self.mem_read.req

        # -- ask: the tile's rectangle, cut to the input's
        taken, filled = Signal(range(HALVES + 1)), Signal(range(HALVES + 1))  # halves asked for; whole
        address, word = Signal(32), Signal(place)
        rows, columns = Signal(SIZE_BITS), Signal(SIZE_BITS)
        iy, ix = Signal(signed(SIZE_BITS + 1)), Signal(signed(SIZE_BITS + 1))
        below, beside = Signal(signed(SIZE_BITS + 2)), Signal(signed(SIZE_BITS + 2))
        beats, line = Signal(BEATS_BITS), Signal(place)
        pixel_beats = plan.x.pixel[beat_shift:]
        ask, last = Signal(), Signal()
        begin = Signal()
        m.d.comb += [
            below.eq(plan.in_height - iy),
            beside.eq(plan.in_width - ix),
            req.payload.addr.eq(address),
            req.payload.beats.eq(beats),
            runs.i.payload.word.eq(word),
            runs.i.payload.columns.eq(columns),
            runs.i.payload.last.eq(last),
            last.eq(rows == 1),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    begin.eq(self.tile.valid & (taken != HALVES)),
                    self.tile.ready.eq(begin),
                ]
                m.d.sync += [
                    address.eq(tile.x),
                    word.eq(0),
                    rows.eq(tile.in_rows),
                    columns.eq(tile.in_columns),
                    iy.eq(tile.iy),
                    ix.eq(tile.ix),
                    line.eq(tile.line),
                ]
                with m.If(begin):
                    m.next = "CLIP"
            with m.State("CLIP"):
                with m.If(iy < 0):
                    m.d.sync += [
                        iy.eq(iy + 1),
                        rows.eq(rows - 1),
                        address.eq(address + plan.x.row),
                        word.eq(word + line),
                    ]
                with m.Elif(ix < 0):
                    m.d.sync += [
                        ix.eq(ix + 1),
                        columns.eq(columns - 1),
                        address.eq(address + plan.x.pixel),
                        word.eq(word + plan.words),
                    ]
                with m.Else():
                    m.d.sync += [
                        rows.eq(Mux(below < rows, below, rows)),
                        columns.eq(Mux(beside < columns, beside, columns)),
                    ]
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += beats.eq(columns * pixel_beats)
                m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += [
                    req.valid.eq(runs.i.ready),
                    ask.eq(req.valid & req.ready),
                    runs.i.valid.eq(ask),
                ]
                with m.If(ask):
                    m.d.sync += [
                        address.eq(address + plan.x.row),
                        word.eq(word + line),
                        rows.eq(rows - 1),
                    ]
                    with m.If(last):
                        m.next = "IDLE"

        # -- take the beats
        per_word = self.config.columns // beat
        m.submodules.memory = memory = Memory(shape=8 * self.config.columns, depth=HALVES * words, init=[])
        write, read = memory.write_port(granularity=8 * beat), memory.read_port()
        active, left = Signal(), Signal(SIZE_BITS)
        at, lane, number = Signal(place), Signal(range(max(2, per_word))), Signal(SIZE_BITS)
        write_half, read_half = Signal(), Signal()
        rsp = self.mem_read.rsp
        pixel_end, tile_end, last_beat = Signal(), Signal(), Signal(SIZE_BITS)
        m.d.sync += last_beat.eq(pixel_beats - 1)
        m.d.comb += [
            rsp.ready.eq(active),
            pixel_end.eq(number == last_beat),
            runs.o.ready.eq(active & rsp.valid & pixel_end & (left == 1)),
            tile_end.eq(runs.o.ready & runs.o.payload.last),
            self.error.eq(rsp.valid & active & rsp.payload.error),
        ]
        with m.If(~active):
            m.d.sync += [
                active.eq(runs.o.valid),
                at.eq(runs.o.payload.word),
                left.eq(runs.o.payload.columns),
                lane.eq(0),
                number.eq(0),
            ]
        with m.Elif(rsp.valid):
            m.d.sync += [
                number.eq(number + 1),
                lane.eq(lane + 1),
            ]
            with m.If(pixel_end | (lane == per_word - 1)):
                m.d.sync += [
                    lane.eq(0),
                    at.eq(at + 1),
                ]
            with m.If(pixel_end):
                m.d.sync += [
                    number.eq(0),
                    left.eq(left - 1),
                ]
            with m.If(runs.o.ready):
                m.d.sync += active.eq(0)
        m.d.comb += [
            write.addr.eq(Cat(at, write_half)),
            write.data.eq(Cat(*[rsp.payload.data] * per_word)),
            *(write.en[k].eq(active & rsp.valid & (lane == k)) for k in range(per_word)),
            read.addr.eq(Cat(self.read.address, read_half)),
            read.en.eq(self.read.en),
            self.data.eq(read.data),
            self.available.eq(filled != 0),
        ]
        m.d.sync += [
            taken.eq(taken + begin - self.release),
            filled.eq(filled + tile_end - self.release),
            write_half.eq(write_half ^ tile_end),
            read_half.eq(read_half ^ self.release),
        ]
        return m
