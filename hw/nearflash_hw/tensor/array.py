"""The multiplier array with its weights held for many pixels, and its accumulators."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract.mlp import kernel_latency

from ..engine.kernel import Kernel
from ..engine.streams import clog2
from ..interfaces import bits_for, index_bits
from .epilogue import ACCUMULATOR_BITS

__all__ = ["REVISIT", "PixelArray", "step_layout", "sums_layout"]

REVISIT = 3  # cycles until an accumulator in block RAM may be used again


def step_layout(columns: int, pixels: int) -> data.StructLayout:
    """A pixel's part of a step: ``x``, one input channel block under one tap. ``begin``: the step's first pixel, with which
    its weights come; ``first`` and ``last``: the output block's first and last step; ``end``: the tile's last pixel."""
    return data.StructLayout({"x": data.ArrayLayout(signed(8), columns), "pixel": index_bits(pixels), "begin": 1, "first": 1,
                              "last": 1, "end": 1})


def sums_layout(lanes: int) -> data.StructLayout:
    """Accumulators of ``lanes`` channels of a pixel; ``first``: the first pixel's."""
    return data.StructLayout({"data": data.ArrayLayout(signed(ACCUMULATOR_BITS), lanes), "first": 1})


class PixelArray(wiring.Component):
    """``rows`` x ``columns`` multipliers; a weight word serves every pixel of a tile (at most ``pixels``).

    ``i``: steps, pixel by pixel from 0 on, in the order output block, step, pixel. ``weight``: the words of the steps, in
    beats, low bytes first: the next word comes in while the last one is used. ``o``: when an output block is complete, its
    sums in the order (``lanes`` rows, pixel), while the array works on the next block; there is room for two tiles of
    pixels. A pixel a cycle, but a word takes as many cycles as it has beats and one more, and a pixel's next step comes
    REVISIT cycles later at the earliest.
    ``idle``: holds nothing but weights. ``step``: a pixel enters; ``unfed``: one waits for its weights; ``full``: one waits
    for room for its sums. :attr:`latency`: from a pixel of the last step to its first sums.
    ``packed``, ``primitive``: see :class:`~nearflash_hw.engine.products.Products`.
    """

    def __init__(self, rows: int, columns: int, pixels: int, lanes: int, beat_bytes: int, *, packed: bool = False,
                 primitive: str = "inferred"):
        if rows % lanes:
            raise ValueError(f"lanes = {lanes}: must divide rows ({rows})")
        if rows * columns % beat_bytes:
            raise ValueError(f"rows x columns = {rows * columns}: must be a multiple of beat_bytes ({beat_bytes})")
        self.rows, self.columns, self.pixels, self.lanes, self.beat_bytes = rows, columns, pixels, lanes, beat_bytes
        self.packed, self.primitive = packed, primitive
        super().__init__({
            "i": In(stream.Signature(step_layout(columns, pixels))),
            "weight": In(stream.Signature(8 * beat_bytes)),
            "o": Out(stream.Signature(sums_layout(lanes))),
            "idle": Out(1),
            "step": Out(1),
            "unfed": Out(1),
            "full": Out(1),
        })

    @property
    def latency(self) -> int:
        """Operands, kernel, accumulator, ring and its output register."""
        return kernel_latency(self.columns) + 4

    def elaborate(self, platform):
        m = Module()
        rows, depth = self.rows, 1 << clog2(2 * self.pixels)
        i, p = self.i, self.i.payload

        # -- weights: the next word is shifted in, the last one holds
        beats = rows * self.columns // self.beat_bytes
        coming = Signal(8 * rows * self.columns, reset_less=True)
        word = Signal.like(coming, reset_less=True)
        arrived = Signal(bits_for(beats))
        complete, begin = Signal(), Signal()
        m.d.comb += [
            complete.eq(arrived == beats),
            self.weight.ready.eq(~complete),
        ]
        with m.If(begin):
            m.d.sync += [
                word.eq(coming),
                arrived.eq(0),
            ]
        with m.Elif(self.weight.valid & self.weight.ready):
            m.d.sync += [
                coming.eq(Cat(coming[8 * self.beat_bytes:], self.weight.payload)),
                arrived.eq(arrived + 1),
            ]

        # -- a pixel enters where its sums will find room, and not before its accumulator is written
        m.submodules.kernel = kernel = Kernel(rows, self.columns, 8, 8, packed=self.packed, primitive=self.primitive)
        tag = data.StructLayout({"valid": 1, "first": 1, "last": 1, "end": 1, "pixel": index_bits(self.pixels)})
        tags = [Signal(tag, name=f"tag{s}") for s in range(kernel.latency + 2)]
        credits, freed = Signal(bits_for(depth), init=depth), Signal(bits_for(depth))
        go = Signal()
        used = Cat(t.valid & (t.pixel == p.pixel) for t in tags[:REVISIT - 1]).any()
        m.d.comb += [
            go.eq(i.valid & (~p.last | (credits != 0)) & (~p.begin | complete) & ~used),
            begin.eq(go & p.begin),
            i.ready.eq(go),
            self.step.eq(go),
            self.unfed.eq(i.valid & p.begin & ~complete),
            self.full.eq(i.valid & p.last & (credits == 0)),
        ]
        m.d.sync += credits.eq(credits + freed - (go & p.last))

        # -- kernel and accumulators
        x = Signal(p.x.shape(), reset_less=True)
        m.d.sync += [
            x.eq(p.x),
            tags[0].eq(Cat(go, p.first, p.last, p.end, p.pixel)),
            *(b.eq(a) for a, b in zip(tags, tags[1:], strict=False)),
        ]
        m.d.comb += [
            kernel.valid.eq(tags[0].valid),
            kernel.x.eq(x),
            kernel.w.as_value().eq(word),
        ]
        layout = data.ArrayLayout(signed(ACCUMULATOR_BITS), rows)
        total = Signal(layout, reset_less=True)
        summed, held = tags[-2], tags[-1]  # with the kernel's sums, and with the total
        m.submodules.accumulators = accumulators = Memory(shape=layout.size, depth=self.pixels, init=[])
        write, read = accumulators.write_port(), accumulators.read_port()
        old = data.View(layout, read.data)
        m.d.comb += [
            read.addr.eq(tags[-3].pixel),
            read.en.eq(tags[-3].valid),
            write.addr.eq(held.pixel),
            write.data.eq(total),
            write.en.eq(held.valid),
        ]
        m.d.sync += [total[r].eq(kernel.sums[r] + Mux(summed.first, 0, old[r])) for r in range(rows)]

        # -- complete sums: a ring, of which a block is read once for every ``lanes`` rows
        parts = rows // self.lanes
        m.submodules.results = results = Memory(shape=layout.size, depth=depth, init=[])
        m.submodules.ends = ends = Memory(shape=1, depth=depth, init=[])  # apart, to be seen before the read
        tail, base, offset = Signal(range(depth)), Signal(range(depth)), Signal(range(self.pixels))
        count = Signal(bits_for(depth))  # from ``base`` on
        part, shown = (Signal(range(max(2, parts)), name=n) for n in ("part", "shown"))
        put, take, end, last_part = Signal(), Signal(), Signal(), Signal()
        write, read = results.write_port(), results.read_port()
        write_end, read_end = ends.write_port(), ends.read_port(domain="comb")
        at = Signal(range(depth))
        m.d.comb += [
            put.eq(held.valid & held.last),
            write.addr.eq(tail),
            write.data.eq(total.as_value()),
            write.en.eq(put),
            write_end.addr.eq(tail),
            write_end.data.eq(held.end),
            write_end.en.eq(put),
            at.eq(base + offset),
            take.eq((~self.o.valid | self.o.ready) & (count != offset)),
            read.addr.eq(at),
            read.en.eq(take),
            read_end.addr.eq(at),
            end.eq(read_end.data),
            last_part.eq(part == parts - 1),
            freed.eq(Mux(take & last_part & end, offset + 1, 0)),
        ]
        m.d.sync += [
            tail.eq(tail + put),
            count.eq(count + put - freed),
            base.eq(base + freed),
        ]
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(take)
        with m.If(take):
            m.d.sync += [
                self.o.payload.first.eq(offset == 0),
                shown.eq(part),
                offset.eq(Mux(end, 0, offset + 1)),
            ]
            with m.If(end):
                m.d.sync += part.eq(Mux(last_part, 0, part + 1))
        bits = self.lanes * ACCUMULATOR_BITS
        m.d.comb += [
            self.o.payload.data.as_value().eq(read.data.word_select(shown, bits) if parts > 1 else read.data),
            self.idle.eq((credits == depth) & ~self.o.valid & ~Cat(t.valid for t in tags).any()),
        ]
        return m
