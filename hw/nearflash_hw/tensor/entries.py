"""Bias, multiplier and shift of every output channel on chip, given to the epilogue block by block."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import ENTRY_BYTES, TensorConfig

from ..engine.requantize import Scale
from ..engine.streams import clog2
from ..interfaces import index_bits
from ..primitives.credit_fifo import CreditFifo
from ..primitives.memport import MemReadSignature
from .plan import ADDRESS_BITS, SIZE_BITS, conv_layout, tile_layout

__all__ = ["PIECE", "EntryStream"]

PIECE = 64  # beats of a request


class EntryStream(wiring.Component):
    """For each ``tile``, the entries of its output blocks, ``rows`` a block; what a block has beyond the channels of its
    shuffle group is undefined. ``start``, before the descriptor's first tile, reads them all (``plan.entry_beats``), and no
    tile is served until they are here. An entry a cycle. ``error``: pulses when a read fails. Asks for PIECE beats at a
    time, so that the first tile's input and weights come between: entries are needed last."""

    def __init__(self, config: TensorConfig, beat_bytes: int):
        if beat_bytes > ENTRY_BYTES:
            raise ValueError(f"beat_bytes = {beat_bytes}: must be at most {ENTRY_BYTES}, an entry")
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            "start": In(1),
            "tile": In(stream.Signature(tile_layout(config))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(Scale())),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan, tile = self.plan, self.tile.payload
        req, rsp = self.mem_read.req, self.mem_read.rsp
        depth = self.config.max_channels
        m.submodules.memory = memory = Memory(shape=Scale().size, depth=depth, init=[])
        write, read = memory.write_port(), memory.read_port()

        # -- load: an entry's beats are shifted in
        loading = Signal()
        beats = ENTRY_BYTES // self.beat_bytes
        before = Signal(8 * (ENTRY_BYTES - self.beat_bytes), reset_less=True)
        entry = Signal(8 * ENTRY_BYTES)
        beat, fill = Signal(range(max(2, beats))), Signal(index_bits(depth))
        bias, mult, shift = entry[:64], entry[64:96], entry[96:128]
        layout = Scale()
        whole = Signal()
        ask_at, left, piece = Signal(ADDRESS_BITS), Signal(SIZE_BITS), Signal(range(PIECE + 1))
        m.d.comb += [
            piece.eq(Mux(left > PIECE, PIECE, left)),
            req.valid.eq(left != 0),
            req.payload.addr.eq(ask_at),
            req.payload.beats.eq(piece),
            rsp.ready.eq(1),
            entry.eq(Cat(before, rsp.payload.data)),
            whole.eq(rsp.valid & (beat == beats - 1)),
            write.addr.eq(fill),
            write.data.eq(Cat(bias[:layout["bias"].width], mult[:layout["mult"].width], shift[:layout["shift"].width])),
            write.en.eq(whole),
            self.error.eq(rsp.valid & rsp.payload.error),
        ]
        with m.If(req.valid & req.ready):
            m.d.sync += [
                ask_at.eq(ask_at + piece * self.beat_bytes),
                left.eq(left - piece),
            ]
        with m.If(self.start):
            m.d.sync += [
                ask_at.eq(plan.entries),
                left.eq(plan.entry_beats),
                loading.eq(1),
                fill.eq(0),
            ]
        with m.If(rsp.valid):
            m.d.sync += [
                before.eq(entry[8 * self.beat_bytes:]),
                beat.eq(Mux(whole, 0, beat + 1)),
                fill.eq(fill + whole),
            ]
            with m.If(whole & (fill == (plan.entry_beats >> clog2(beats)) - 1)):
                m.d.sync += loading.eq(0)

        # -- give: a tile's first block is its group's, where the last group ended
        m.submodules.out = out = CreditFifo(Scale(), 4)
        m.d.comb += [
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
        ]
        # first entry of the shuffle group and of the block; the block's first channel in the group
        place = data.StructLayout({"shuffle": SIZE_BITS, "index": SIZE_BITS, "channel": SIZE_BITS})
        begin, at, following = Signal(place), Signal(place), Signal(place)
        row, block = Signal(range(self.config.rows)), Signal.like(tile.blocks)
        active, go, block_end, came = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            go.eq(active & out.credit),
            block_end.eq(row == self.config.rows - 1),
            following.eq(at),
            out.spend.eq(go),
            out.push.eq(came),
            out.payload.eq(read.data),
            read.addr.eq(at.index + row),
            read.en.eq(go),
            self.tile.ready.eq(go & block_end & (block == 1)),
        ]
        with m.If(at.channel + self.config.rows >= plan.channels):
            m.d.comb += [
                following.shuffle.eq(at.shuffle + plan.channels),
                following.index.eq(at.shuffle + plan.channels),
                following.channel.eq(0),
            ]
        with m.Else():
            m.d.comb += [
                following.index.eq(at.index + self.config.rows),
                following.channel.eq(at.channel + self.config.rows),
            ]
        m.d.sync += came.eq(go)
        with m.If(~active):
            m.d.sync += [
                active.eq(self.tile.valid & ~loading),
                block.eq(tile.blocks),
                row.eq(0),
                at.eq(Mux(tile.first, 0, begin)),
            ]
            with m.If(self.tile.valid & tile.first):
                m.d.sync += begin.eq(0)
        with m.Elif(go):
            m.d.sync += row.eq(row + 1)
            with m.If(block_end):
                m.d.sync += [
                    at.eq(following),
                    block.eq(block - 1),
                ]
                with m.If(block == 1):
                    m.d.sync += active.eq(0)
                    with m.If(tile.group_end):
                        m.d.sync += begin.eq(following)
        return m
