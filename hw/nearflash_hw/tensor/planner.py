"""From a convolution's descriptor to what its units need to know."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import DESCRIPTOR_BYTES, ENTRY_BYTES, FIELDS, TensorConfig

from ..engine.streams import clog2
from .plan import ADDRESS_BITS, SIZE_BITS, conv_layout

__all__ = ["ConvPlanner", "descriptor_layout"]


def descriptor_layout() -> data.FlexibleLayout:
    """The 128 bytes of a descriptor, with contract.tensor's fields where they lie."""
    shapes = {f.name: signed(f.bits) if f.low < 0 else unsigned(f.bits) for f in FIELDS}
    return data.FlexibleLayout(8 * DESCRIPTOR_BYTES, {
        f.name: data.Field(shapes[f.name], 32 * f.word + f.lsb) for f in FIELDS})


class ConvPlanner(wiring.Component):
    """``start``: works out ``plan`` of a checked CONV ``descriptor``, which is steady from the cycle before until ``done``
    pulses, after a number of cycles that depends on the design alone. The plan holds until the next ``start``.

    One multiplier does all products, one after the other: they take some 90 cycles, a convolution thousands.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "descriptor": In(descriptor_layout()),
            "start": In(1),
            "done": Out(1),
            "plan": Out(conv_layout()),
        })

    def elaborate(self, platform):
        m = Module()
        c, d, plan, beat = self.config, self.descriptor, self.plan, self.beat_bytes
        side = Signal(4)
        width, steps, square, blocks = (Signal(SIZE_BITS, name=n) for n in ("width", "steps", "square", "blocks"))
        entries = Signal(SIZE_BITS)
        # channel blocks of an input word and of an output block
        words, outputs = Signal.like(plan.words), Signal(SIZE_BITS)

        def beats(channels: Value, wide: Value) -> Value:
            return (((channels << wide) + beat - 1) >> clog2(beat)) << clog2(beat)

        def steps_of(surface: data.View, line: Value, spread: Value) -> list[tuple[Value, Value, Value]]:
            return [(surface.row, surface.pixel, line), (surface.right, surface.pixel, spread),
                    (surface.down, surface.row, spread), (surface.tile_right, surface.right, d.tile_columns),
                    (surface.tile_down, surface.down, d.tile_rows)]

        above, before = (Signal(ADDRESS_BITS, name=n) for n in ("above", "before"))  # of padding, in bytes
        #: (product, its factors), each of what comes before it
        program = [
            *steps_of(plan.x, d.in_width, d.stride),
            (above, plan.x.row, d.pad_top), (before, plan.x.pixel, d.pad_left),
            (width, d.out_width, side), *steps_of(plan.y, width, side), *steps_of(plan.r, width, side),
            (plan.tile_iy, d.tile_rows, d.stride), (plan.tile_ix, d.tile_columns, d.stride),
            (plan.kernel_words, words, d.kernel_w), (plan.stride_words, words, d.stride),
            (steps, plan.kernel_words, d.kernel_h), (square, side, side), (blocks, outputs, square),
            (entries, d.out_channels, square)]

        # -- a product in three cycles: its factors, itself, to its place
        index = Signal(range(len(program)))
        a, b, product = Signal(ADDRESS_BITS, reset_less=True), Signal(SIZE_BITS), Signal(ADDRESS_BITS, reset_less=True)
        m.d.sync += [
            a.eq(Array(f for _, f, _ in program)[index]),
            b.eq(Array(f for _, _, f in program)[index]),
            product.eq(a * b),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += index.eq(0)
                with m.If(self.start):
                    m.next = "FACTORS"
            with m.State("FACTORS"):
                m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.next = "PLACE"
            with m.State("PLACE"):
                with m.Switch(index):
                    for k, (to, _, _) in enumerate(program):
                        with m.Case(k):
                            m.d.sync += to.eq(product)
                m.d.sync += index.eq(index + 1)
                m.next = "FACTORS"
                with m.If(index == len(program) - 1):
                    m.next = "ORIGIN"
            with m.State("ORIGIN"):
                m.d.sync += plan.x.at.eq(d.x - above)
                m.next = "END"
            with m.State("END"):
                m.d.sync += [
                    plan.x.at.eq(plan.x.at - before),
                    self.done.eq(1),
                ]
                m.next = "IDLE"
        with m.If(self.done):
            m.d.sync += self.done.eq(0)

        # -- what takes no product
        same = ("weights", "entries", "in_height", "in_width", "out_height", "out_width", "tile_rows", "tile_columns",
                "kernel_h", "kernel_w", "stride", "pad_top", "pad_left", "pad_value")
        epilogue = ("low", "high", "residual", "residual_mult", "residual_shift", "frac", "offset", "lookup")
        m.d.sync += [
            side.eq(Mux(d.shuffle == 0, 1, d.shuffle)),
            words.eq((d.in_channels + c.columns - 1) >> clog2(c.columns)),
            outputs.eq((d.out_channels + c.rows - 1) >> clog2(c.rows)),
            *(s.pixel.eq(beats(n, wide)) for s, n, wide in (
                (plan.x, d.in_channels, d.x16), (plan.y, d.out_channels, d.y16), (plan.r, d.out_channels, d.r16))),
            plan.y.at.eq(d.y),
            plan.r.at.eq(d.r),
            plan.x.wide.eq(d.x16),
            plan.y.wide.eq(d.y16),
            plan.r.wide.eq(d.r16),
            *(plan[n].eq(d[n]) for n in same),
            *(plan.epilogue[n].eq(d[n]) for n in epilogue),
            plan.channels.eq(d.out_channels),
            plan.shuffle.eq(side),
            plan.words.eq(words),
            plan.blocks.eq(blocks),
            plan.streamed.eq(d.group_blocks == 0),
            plan.group.eq(Mux(d.group_blocks == 0, blocks, d.group_blocks)),
            plan.block_beats.eq(steps << clog2(c.rows * c.columns // beat)),
            plan.entry_beats.eq(entries << clog2(ENTRY_BYTES // beat)),
        ]
        return m
