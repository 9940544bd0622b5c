"""Between beats and groups of ``lanes`` channels, pixel by pixel."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..engine.streams import clog2
from .epilogue import CODE_BITS
from .plan import SIZE_BITS

__all__ = ["GroupPacker", "GroupSplitter", "group_layout", "pieces", "pixel_beats"]


def group_layout(lanes: int) -> data.ArrayLayout:
    """``lanes`` neighbouring channels of a pixel, sign-extended."""
    return data.ArrayLayout(signed(CODE_BITS), lanes)


def pieces(size: Value, of: int) -> Value:
    """How many pieces of ``of``, a power of two, ``size`` takes."""
    return (size + (of - 1)) >> clog2(of)


def pixel_beats(channels: Value, wide: Value | int, beat_bytes: int) -> Value:
    """Of a pixel of int8 or, ``wide``, int16 channels."""
    return pieces(Mux(wide, channels << 1, channels), beat_bytes)


class _Walk(wiring.Component):
    """What both directions count: where in its beat a group of a pixel lies."""

    def __init__(self, lanes: int, beat_bytes: int, ports: dict):
        if lanes > beat_bytes:
            raise ValueError(f"lanes = {lanes}: must be at most beat_bytes ({beat_bytes})")
        self.lanes, self.beat_bytes = lanes, beat_bytes
        super().__init__({"channels": In(SIZE_BITS), "wide": In(1), **ports})

    def walk(self, m: Module, step: Signal) -> tuple[Signal, Signal, Signal, Signal]:
        """(part, part_end, group_end, odd): place of the group in its beat, of which it is the last; whether it is the
        pixel's last; whether the pixel has an odd number of beats. ``step``: on to the next group."""
        lanes, beat = self.lanes, self.beat_bytes
        group, groups = Signal(SIZE_BITS), Signal(SIZE_BITS)
        part = Signal(range(max(2, beat // lanes)))
        part_end, group_end, odd = Signal(), Signal(), Signal()
        m.d.sync += [  # steady long before the first group
            groups.eq(pieces(self.channels, lanes) - 1),
            odd.eq(pixel_beats(self.channels, self.wide, beat)[0]),
        ]
        m.d.comb += [
            group_end.eq(group == groups),
            part_end.eq(group_end | (part == Mux(self.wide, max(1, beat // lanes // 2), beat // lanes) - 1)),
        ]
        with m.If(step):
            m.d.sync += [
                group.eq(Mux(group_end, 0, group + 1)),
                part.eq(Mux(part_end, 0, part + 1)),
            ]
        return part, part_end, group_end, odd


class GroupSplitter(_Walk):
    """The groups of pixels of ``channels`` that begin with a beat, from their beats. ``channels`` and ``wide`` are steady
    from two cycles before the first. A group a cycle, every other cycle where one is two beats."""

    def __init__(self, lanes: int, beat_bytes: int):
        super().__init__(lanes, beat_bytes, {
            "i": In(stream.Signature(8 * beat_bytes)),
            "o": Out(stream.Signature(group_layout(lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, beat, o = self.lanes, self.beat_bytes, self.o
        step = Signal()
        part, part_end, group_end, odd = self.walk(m, step)
        m.d.comb += step.eq(o.valid & o.ready)
        raw = self.i.payload
        narrow = raw.word_select(part, 8 * lanes)
        if lanes < beat:
            wide = raw.word_select(part, 16 * lanes)
            m.d.comb += [
                o.valid.eq(self.i.valid),
                self.i.ready.eq(step & part_end),
            ]
        else:
            held, have, only = Signal(8 * beat, reset_less=True), Signal(), Signal()
            wide = Mux(have, Cat(held, raw), raw)
            m.d.comb += [
                only.eq(~self.wide | (group_end & odd)),
                o.valid.eq(self.i.valid & (have | only)),
                self.i.ready.eq(Mux(have | only, o.ready, 1)),
            ]
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [
                    held.eq(raw),
                    have.eq(~have & ~only),
                ]
        wide_bits = Signal(16 * lanes)
        m.d.comb += wide_bits.eq(wide)
        for k in range(lanes):
            m.d.comb += o.payload[k].eq(Mux(self.wide, wide_bits[16 * k:16 * k + 16].as_signed(),
                                            narrow[8 * k:8 * k + 8].as_signed()))
        return m


class GroupPacker(_Walk):
    """Groups to the beats of ``height`` x ``width`` pixels, zeros behind a pixel's last channel; ``last`` with the last
    beat. A group a cycle, every other cycle where one is two beats."""

    def __init__(self, lanes: int, beat_bytes: int):
        super().__init__(lanes, beat_bytes, {
            "height": In(SIZE_BITS),
            "width": In(SIZE_BITS),
            "i": In(stream.Signature(group_layout(lanes))),
            "o": Out(stream.Signature(data.StructLayout({"data": 8 * beat_bytes, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, beat, i, o = self.lanes, self.beat_bytes, self.i, self.o
        step = Signal()
        part, part_end, group_end, odd = self.walk(m, step)
        m.d.comb += step.eq(i.valid & i.ready)
        tail = self.channels[:clog2(lanes)] if lanes > 1 else Const(0, 1)
        exists = [~group_end | (tail == 0) | (tail > k) for k in range(lanes)]
        kept = [Mux(exists[k], i.payload[k], 0) for k in range(lanes)]
        narrow, wide = Signal(8 * lanes), Signal(16 * lanes)
        m.d.comb += [
            narrow.eq(Cat(v[:8] for v in kept)),
            wide.eq(Cat(kept)),
        ]
        if lanes < beat:
            before, whole = Signal(8 * beat), Signal(8 * beat)
            placed = Signal(8 * beat)
            with m.If(self.wide):
                m.d.comb += placed.word_select(part, 16 * lanes).eq(wide)
            with m.Else():
                m.d.comb += placed.word_select(part, 8 * lanes).eq(narrow)
            m.d.comb += [
                whole.eq(before | placed),
                o.payload.data.eq(whole),
                o.valid.eq(i.valid & part_end),
                i.ready.eq(o.ready | ~part_end),
            ]
            with m.If(step):
                m.d.sync += before.eq(Mux(part_end, 0, whole))
            beat_end = group_end
        else:
            second, done = Signal(), Signal()
            m.d.comb += [
                done.eq(~self.wide | second | (group_end & odd)),
                o.payload.data.eq(Mux(self.wide, wide.word_select(second, 8 * beat), narrow)),
                o.valid.eq(i.valid),
                i.ready.eq(o.ready & done),
            ]
            with m.If(o.valid & o.ready):
                m.d.sync += second.eq(~done)
            beat_end = group_end & done
        x, y, right, bottom = (Signal(SIZE_BITS, name=n) for n in ("x", "y", "right", "bottom"))  # and the last ones
        row_end = Signal()
        m.d.sync += [
            right.eq(self.width - 1),
            bottom.eq(self.height - 1),
        ]
        m.d.comb += [
            row_end.eq(x == right),
            o.payload.last.eq(beat_end & row_end & (y == bottom)),
        ]
        with m.If(step & group_end):
            m.d.sync += x.eq(Mux(row_end, 0, x + 1))
            with m.If(row_end):
                m.d.sync += y.eq(Mux(y == bottom, 0, y + 1))
        return m
