"""Which word of the input the array multiplies next: taps, stride and padding, without a matrix of patches."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from ..interfaces import index_bits
from ..primitives.credit_fifo import CreditFifo
from .array import step_layout
from .input_buffer import read_layout
from .plan import SIZE_BITS, SMALL_BITS, conv_layout, half_words, tile_layout

__all__ = ["Window"]


class Window(wiring.Component):
    """For each ``tile``, once ``available``: reads it from :class:`.InputTiles` in the order output block, tap (row-major),
    channel block, pixel, and sends the array its steps. What lies outside the input is ``pad_value``.

    A pixel a cycle; between tiles two cycles. Steps within a kernel row are neighbouring words, so a tap is an addition.
    ``idle``: between tiles, with nothing on the way.
    """

    def __init__(self, config: TensorConfig):
        self.config = config
        super().__init__({
            "plan": In(conv_layout()),
            "tile": In(stream.Signature(tile_layout(config))),
            "available": In(1),
            "read": Out(read_layout(config)),
            "data": In(8 * config.columns),
            "release": Out(1),
            "o": Out(stream.Signature(step_layout(config.columns, config.pixels))),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, plan, tile = self.config, self.plan, self.tile.payload
        place = index_bits(half_words(c))
        m.submodules.steps = steps = CreditFifo(self.o.payload.shape(), 8)
        m.d.comb += [
            self.o.payload.eq(steps.o.payload),
            self.o.valid.eq(steps.o.valid),
            steps.o.ready.eq(self.o.ready),
        ]
        # words: of this pixel, its row's first, the step's first; pixels likewise
        address, row_address, tap_address = (Signal(place, name=f"{n}address") for n in ("", "row_", "tap_"))
        iy, ix, tap_y, tap_x = (Signal(signed(SIZE_BITS + 1), name=n) for n in ("iy", "ix", "tap_y", "tap_x"))
        py, px, bottom, right = (Signal.like(v, name=n) for v, n in (
            (tile.rows, "py"), (tile.columns, "px"), (tile.rows, "bottom"), (tile.columns, "right")))  # and the last ones
        pixel, last_word = Signal(index_bits(c.pixels)), Signal.like(plan.words)
        ky, kx, word = Signal(SMALL_BITS), Signal(SMALL_BITS), Signal.like(plan.words)
        block = Signal.like(tile.blocks)
        active, first = Signal(), Signal()
        go = Signal()
        row_end, step_end, tap_end, kernel_row_end, kernel_end, tile_end = (
            Signal(name=n) for n in ("row_end", "step_end", "tap_end", "kernel_row_end", "kernel_end", "tile_end"))
        m.d.sync += last_word.eq(plan.words - 1)
        m.d.comb += [
            go.eq(active & steps.credit),
            steps.spend.eq(go),
            self.read.en.eq(go),
            self.read.address.eq(address),
            row_end.eq(px == right),
            step_end.eq(row_end & (py == bottom)),
            tap_end.eq(word == last_word),
            kernel_row_end.eq(tap_end & (kx == plan.kernel_w - 1)),
            kernel_end.eq(kernel_row_end & (ky == plan.kernel_h - 1)),
            tile_end.eq(go & step_end & kernel_end & (block == 1)),
            self.release.eq(tile_end),
            self.tile.ready.eq(tile_end),
            self.idle.eq(~active & steps.idle),
        ]
        # the next step's first pixel
        step_address, step_y, step_x = Signal(place), Signal.like(iy), Signal.like(ix)
        m.d.comb += [
            step_address.eq(Mux(kernel_end, 0, tap_address + Mux(kernel_row_end, tile.skip, 1))),
            step_y.eq(Mux(kernel_end, tile.iy, tap_y + kernel_row_end)),
            step_x.eq(Mux(kernel_row_end, tile.ix, tap_x + tap_end)),
        ]
        with m.If(~active):
            m.d.sync += [
                active.eq(self.tile.valid & self.available),
                block.eq(tile.blocks),
                right.eq(tile.columns - 1),
                bottom.eq(tile.rows - 1),
                *(s.eq(0) for s in (address, row_address, tap_address, py, px, pixel, ky, kx, word)),
                *(s.eq(tile.iy) for s in (iy, tap_y)),
                *(s.eq(tile.ix) for s in (ix, tap_x)),
                first.eq(1),
            ]
        with m.Elif(go):
            m.d.sync += [
                px.eq(px + 1),
                pixel.eq(pixel + 1),
                address.eq(address + plan.stride_words),
                ix.eq(ix + plan.stride),
            ]
            with m.If(step_end):
                m.d.sync += [
                    *(s.eq(0) for s in (px, py, pixel)),
                    *(s.eq(step_address) for s in (address, row_address, tap_address)),
                    *(s.eq(step_y) for s in (iy, tap_y)),
                    *(s.eq(step_x) for s in (ix, tap_x)),
                    word.eq(Mux(tap_end, 0, word + 1)),
                    first.eq(kernel_end),
                ]
                with m.If(tap_end):
                    m.d.sync += kx.eq(Mux(kernel_row_end, 0, kx + 1))
                with m.If(kernel_row_end):
                    m.d.sync += ky.eq(Mux(kernel_end, 0, ky + 1))
                with m.If(kernel_end):
                    m.d.sync += block.eq(block - 1)
            with m.Elif(row_end):
                m.d.sync += [
                    px.eq(0),
                    py.eq(py + 1),
                    address.eq(row_address + tile.down),
                    row_address.eq(row_address + tile.down),
                    iy.eq(iy + plan.stride),
                    ix.eq(tap_x),
                ]
            with m.If(tile_end):
                m.d.sync += active.eq(0)

        # -- the word comes a cycle after its read; a register takes it, or the padding
        read = Signal(self.o.payload.shape(), reset_less=True)
        came, padding, put = Signal(), Signal(reset_less=True), Signal()
        m.d.sync += [
            came.eq(go),
            padding.eq((iy < 0) | (iy >= plan.in_height) | (ix < 0) | (ix >= plan.in_width)),
            read.pixel.eq(pixel),
            read.begin.eq(pixel == 0),
            read.first.eq(first),
            read.last.eq(kernel_end),
            read.end.eq(step_end),
            put.eq(came),
            steps.payload.eq(read),
            steps.payload.x.as_value().eq(Mux(padding, Cat(*[plan.pad_value] * c.columns), self.data)),
        ]
        m.d.comb += steps.push.eq(put)
        return m
