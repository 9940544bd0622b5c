"""LAYERNORM: every pixel's channels, their mean taken off, over their deviation, scaled."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import ENTRY_BYTES, TensorConfig
from nearflash.reference.requantize import MULT_BITS
from nearflash.reference.tensor.norm import Z_BITS

from ..engine.requantize import Requantizer, Scale
from ..engine.streams import clog2
from ..interfaces import bits_for, index_bits
from ..primitives.credit_fifo import CreditFifo
from ..primitives.fifo import StreamFifo
from .array import sums_layout
from .bursts import BurstReader, BurstWriter, TensorRows
from .entries import EntryStream
from .epilogue import CODE_BITS
from .groups import GroupPacker, GroupSplitter, group_layout, pieces, pixel_beats
from .plan import SIZE_BITS, every_ready, tile_layout, unit_queue
from .planner import descriptor_layout
from .root import SPREAD_BITS, ReciprocalRoot, ReciprocalRoots, recip_layout
from .unit import epilogue_ports, unit_ports

__all__ = ["LayerNormalisation"]

CHANNEL_BITS = 11  # 1024
TOTAL_BITS = CODE_BITS + CHANNEL_BITS - 1  # of a pixel's sum
SQUARES_BITS = 2 * (CODE_BITS - 1) + CHANNEL_BITS - 1  # of its squares' sum
DEVIATION_BITS = TOTAL_BITS + 1
HALF_BITS = 13  # a sum is squared in two digits
EPS_BITS = 48
HALVES = 2
LARGEST_PIXELS = 4  # pixels of max_channels that a half of the buffer holds
ROOTED = 96  # channels of the narrowest pixel that the roots keep up with


def moments_layout() -> data.StructLayout:
    """``total``: a pixel's sum; ``spread``: V of docs/offload.md."""
    return data.StructLayout({"total": signed(TOTAL_BITS), "spread": SPREAD_BITS})


class Moments(wiring.Component):
    """Sum and spread of pixels of ``channels``, in groups of ``lanes`` (what lies beyond is ignored). ``channels`` and
    ``eps`` are steady from two cycles before a pixel until its moments are out. A group a cycle."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__({
            "channels": In(SIZE_BITS),
            "eps": In(EPS_BITS),
            "i": In(stream.Signature(group_layout(lanes))),
            "o": Out(stream.Signature(moments_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, i = self.lanes, self.i
        m.submodules.out = out = CreditFifo(moments_layout(), 32)
        group, groups = Signal(SIZE_BITS), Signal(SIZE_BITS)
        tail = self.channels[:clog2(lanes)] if lanes > 1 else Const(0, 1)
        group_end, take = Signal(), Signal()
        m.d.sync += groups.eq(pieces(self.channels, lanes) - 1)
        m.d.comb += [
            group_end.eq(group == groups),
            take.eq(i.valid & (out.credit | ~group_end)),
            i.ready.eq(out.credit | ~group_end),
            out.spend.eq(take & group_end),
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
        ]
        with m.If(take):
            m.d.sync += group.eq(Mux(group_end, 0, group + 1))

        # -- over a group: products, then trees of two levels a register
        levels = [[Signal(signed(CODE_BITS), name=f"x{k}", reset_less=True) for k in range(lanes)], []]
        exists = [~group_end | (tail == 0) | (tail > k) for k in range(lanes)]
        m.d.sync += [x.eq(Mux(exists[k], i.payload[k], 0)) for k, x in enumerate(levels[0])]
        stage = 1
        marks = [Signal(data.StructLayout({"valid": 1, "first": 1, "last": 1}), name="mark1")]
        m.d.sync += marks[0].eq(Cat(take, group == 0, group_end))

        def later() -> None:
            nonlocal stage
            stage += 1
            mark = Signal.like(marks[0], name=f"mark{stage}")
            m.d.sync += mark.eq(marks[-1])
            marks.append(mark)

        def held(value, name: str) -> Signal:
            s = Signal(value.shape(), name=f"{name}_{stage}", reset_less=True)
            m.d.sync += s.eq(value)
            return s

        later()
        sums = [held(x, f"sum{k}") for k, x in enumerate(levels[0])]
        squares = [held((x * x)[:2 * CODE_BITS - 1], f"square{k}") for k, x in enumerate(levels[0])]
        while len(sums) > 1:
            later()
            for _ in range(2):
                if len(sums) > 1:
                    sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
                    squares = [a + b for a, b in zip(squares[::2], squares[1::2], strict=True)]
            sums = [held(v, f"sum{k}") for k, v in enumerate(sums)]
            squares = [held(v, f"square{k}") for k, v in enumerate(squares)]
        mark = marks[-1]
        total, square = Signal(signed(TOTAL_BITS), reset_less=True), Signal(SQUARES_BITS, reset_less=True)
        complete = Signal()
        with m.If(mark.valid):
            m.d.sync += [
                total.eq(sums[0] + Mux(mark.first, 0, total)),
                square.eq(squares[0] + Mux(mark.first, 0, square)),
            ]
        m.d.sync += complete.eq(mark.valid & mark.last)

        # -- over a pixel: C Q - S S + eps, products of one DSP each
        low_bits = SQUARES_BITS // 2
        valid = [complete, *(Signal(name=f"valid{k}") for k in range(1, 6))]
        m.d.sync += [b.eq(a) for a, b in zip(valid, valid[1:], strict=False)]
        totals = [total, *(Signal.like(total, name=f"total{k}", reset_less=True) for k in range(1, 6))]
        m.d.sync += [b.eq(a) for a, b in zip(totals, totals[1:], strict=False)]

        def reg(bits, name: str) -> Signal:
            return Signal(bits, name=name, reset_less=True)

        size, kept = reg(TOTAL_BITS, "size"), reg(SQUARES_BITS, "kept")  # |S|, Q
        c_low, c_high = reg(low_bits + CHANNEL_BITS, "c_low"), reg(SQUARES_BITS - low_bits + CHANNEL_BITS, "c_high")
        s_low, s_mid, s_high = (reg(2 * HALF_BITS, name) for name in ("s_low", "s_mid", "s_high"))
        scaled, lower, upper = reg(SPREAD_BITS, "scaled"), reg(SPREAD_BITS, "lower"), reg(signed(SPREAD_BITS + 1), "upper")
        difference, rest = reg(signed(SPREAD_BITS + 1), "difference"), reg(signed(SPREAD_BITS + 1), "rest")
        spread = reg(SPREAD_BITS, "spread")
        low, high = size[:HALF_BITS], size[HALF_BITS:]
        m.d.sync += [
            size.eq(Mux(total < 0, -total, total)),
            kept.eq(square),
            c_low.eq(self.channels[:CHANNEL_BITS] * kept[:low_bits]),
            c_high.eq(self.channels[:CHANNEL_BITS] * kept[low_bits:]),
            s_low.eq(low * low),
            s_mid.eq(low * high),
            s_high.eq(high * high),
            scaled.eq(c_low + (c_high << low_bits)),
            lower.eq(s_low + (s_mid << HALF_BITS + 1)),
            upper.eq(self.eps - (s_high << 2 * HALF_BITS)),
            difference.eq(scaled - lower),
            rest.eq(upper),
            spread.eq(difference + rest),
        ]
        m.d.comb += [
            out.push.eq(valid[5]),
            out.payload.spread.eq(spread),
            out.payload.total.eq(totals[5]),
        ]
        return m


class PixelOrder(wiring.Component):
    """Codes of 8 bits of a ``tile`` of ``columns`` pixels, which come channel group by channel group, pixel by pixel: in the
    tensor's order. A tile leaves, a group a cycle, while the next comes; it has at most ``half`` groups."""

    def __init__(self, config: TensorConfig, half: int):
        self.config, self.half = config, half
        super().__init__({
            "groups": In(SIZE_BITS),
            "tile": In(stream.Signature(tile_layout(config))),
            "i": In(stream.Signature(group_layout(config.lanes))),
            "o": Out(stream.Signature(group_layout(config.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, bits = self.config.lanes, index_bits(HALVES * self.half)
        m.submodules.memory = memory = Memory(shape=8 * lanes, depth=HALVES * self.half, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.submodules.whole = whole = StreamFifo(range(self.half + 1), HALVES)  # groups of tiles that are here
        m.submodules.out = out = CreditFifo(8 * lanes, 8)
        free, freed = Signal(range(HALVES + 1), init=HALVES), Signal()

        begin, first, at = Signal(bits), Signal(bits), Signal(bits)  # of the tile, of the channel group, of the pixel
        pixel, group, count = Signal.like(self.tile.payload.columns), Signal(SIZE_BITS), Signal(range(self.half + 1))
        last_pixel, last_group = Signal.like(pixel), Signal.like(group)
        active, take, set_end, tile_end, opening = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            opening.eq(~active & self.tile.valid & (free != 0)),
            take.eq(active & self.i.valid),
            self.i.ready.eq(active),
            set_end.eq(pixel == last_pixel),
            tile_end.eq(take & set_end & (group == last_group)),
            self.tile.ready.eq(tile_end),
            write.addr.eq(at),
            write.data.eq(Cat(v[:8] for v in self.i.payload)),
            write.en.eq(take),
            whole.i.payload.eq(count + 1),
            whole.i.valid.eq(tile_end),
        ]
        m.d.sync += [
            free.eq(free + freed - opening),
            last_group.eq(self.groups - 1),
        ]
        with m.If(opening):
            m.d.sync += [
                active.eq(1),
                last_pixel.eq(self.tile.payload.columns - 1),
                *(s.eq(begin) for s in (first, at)),
                *(s.eq(0) for s in (pixel, group, count)),
            ]
        with m.If(take):
            m.d.sync += [
                pixel.eq(pixel + 1),
                at.eq(at + self.groups),
                count.eq(count + 1),
            ]
            with m.If(set_end):
                m.d.sync += [
                    pixel.eq(0),
                    group.eq(group + 1),
                    *(s.eq(first + 1) for s in (first, at)),
                ]
            with m.If(tile_end):
                m.d.sync += [
                    active.eq(0),
                    begin.eq(at + 1),
                ]

        place, left = Signal(bits), Signal(range(self.half + 1))
        go, came = Signal(), Signal()
        m.d.comb += [
            go.eq((left != 0) & out.credit),
            whole.o.ready.eq((left == 0) | (go & (left == 1))),
            freed.eq(go & (left == 1)),
            read.addr.eq(place),
            read.en.eq(go),
            out.spend.eq(go),
            out.push.eq(came),
            out.payload.eq(read.data),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
            *(v.eq(out.o.payload[8 * k:8 * k + 8].as_signed()) for k, v in enumerate(self.o.payload)),
        ]
        m.d.sync += [
            came.eq(go),
            place.eq(place + go),
            left.eq(left - go),
        ]
        with m.If(whole.o.ready):
            m.d.sync += left.eq(Mux(whole.o.valid, whole.o.payload, 0))
        return m


class LayerNormalisation(wiring.Component):
    """``start``: does what a checked LAYERNORM ``descriptor`` says; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``descriptor`` steady from three cycles before it until ``done``. ``mem_read``: 0 x,
    1 entries. ``sums``, ``entry``, ``codes``: an :class:`~nearflash_hw.tensor.epilogue.Epilogue` of ``config.lanes``, whose
    ``low`` and ``high`` are the descriptor's and everything else 0: it adds the bias, shifts and clamps (mult 1), here are
    moments, deviation and gain.

    Pixels are taken as they come and kept, as many as half a buffer holds (LARGEST_PIXELS of ``max_channels``, at most
    ``pixels``); while the next ones come they leave in the order of a convolution (``lanes`` channels, pixel), so that the
    epilogue needs one entry a cycle, and are put back into the tensor's, to be written in bursts. As fast as x is read
    (``lanes`` channels a cycle, 16-bit ones of a beat's lanes every other), if a pixel takes ReciprocalRoot.CYCLES /
    ``roots`` cycles: there are as many roots as pixels of ROOTED channels of 16 bits need. A group takes as many cycles as
    it has lanes, at least.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        self.roots = ceil(ReciprocalRoot.CYCLES / (ROOTED / min(config.lanes, beat_bytes / 2)))
        super().__init__({
            "descriptor": In(descriptor_layout()),
            **unit_ports(beat_bytes, 2),
            **epilogue_ports(config.lanes),
        })

    def elaborate(self, platform):
        m = Module()
        c, d, lanes, beat = self.config, self.descriptor, self.config.lanes, self.beat_bytes
        by_group = replace(c, rows=lanes)  # the units that go by output blocks
        m.submodules.rows = rows = TensorRows(beat)
        m.submodules.reader = reader = BurstReader(beat)
        m.submodules.splitter = splitter = GroupSplitter(lanes, beat)
        m.submodules.moments = moments = Moments(lanes)
        m.submodules.roots = roots = ReciprocalRoots(self.roots)
        m.submodules.entries = entries = EntryStream(by_group, beat)
        half = LARGEST_PIXELS * c.max_channels // lanes
        m.submodules.order = order = PixelOrder(c, half)
        m.submodules.packer = packer = GroupPacker(lanes, beat)
        m.submodules.writer = writer = BurstWriter(beat)
        m.d.comb += [
            rows.start.eq(self.start),
            rows.at.eq(d.x),
            rows.height.eq(d.in_height),
            rows.width.eq(d.in_width),
            rows.pixel.eq(pixel_beats(d.in_channels, d.x16, beat)),
            splitter.channels.eq(d.in_channels),
            splitter.wide.eq(d.x16),
            moments.channels.eq(d.in_channels),
            moments.eps.eq(Cat(d.eps_low, d.eps_high)),
            entries.start.eq(self.start),
            packer.channels.eq(d.in_channels),
            packer.height.eq(d.in_height),
            packer.width.eq(d.in_width),
            writer.start.eq(self.start),
            writer.address.eq(d.y),
            writer.failed.eq(reader.error | entries.error),
        ]
        connect(m, rows.o, reader.run)
        connect(m, reader.o, splitter.i)

        groups = Signal(SIZE_BITS)
        m.d.sync += groups.eq(pieces(d.in_channels, lanes))
        m.d.comb += [
            order.groups.eq(groups),
            entries.plan.channels.eq(d.in_channels),
            entries.plan.entries.eq(d.entries),
            entries.plan.entry_beats.eq(d.in_channels << clog2(ENTRY_BYTES // beat)),
        ]

        # -- take: pixels into the buffer and to their moments, tile by tile
        word_bits, slot_bits = index_bits(HALVES * half), index_bits(HALVES * c.pixels)
        m.submodules.buffer = buffer = Memory(shape=CODE_BITS * lanes, depth=HALVES * half, init=[])
        keep, again = buffer.write_port(), buffer.read_port()
        running, opened = Signal(), Signal()
        free, freed = Signal(bits_for(HALVES), init=HALVES), Signal()
        fill, count, group = Signal(range(half + 1)), Signal(bits_for(c.pixels)), Signal(SIZE_BITS)
        px, py, word = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(word_bits)
        last_group, last_column, last_row, last_fill = (Signal.like(v, name=n) for v, n in (
            (group, "last_group"), (px, "last_column"), (py, "last_row"), (fill, "last_fill")))
        tile = stream.Signature(tile_layout(c)).create()
        take, room, pixel_end, row_end, end, full, opening = (Signal(name=n) for n in (
            "take", "room", "pixel_end", "row_end", "end", "full", "opening"))
        x = splitter.o
        m.d.comb += [
            room.eq(opened & (tile.ready | ~pixel_end)),
            moments.i.payload.eq(x.payload),
            moments.i.valid.eq(x.valid & room),
            x.ready.eq(moments.i.ready & room),
            take.eq(x.valid & x.ready),
            pixel_end.eq(group == last_group),
            row_end.eq(px == last_column),
            end.eq(row_end & (py == last_row)),
            full.eq((fill >= last_fill) | (count == c.pixels - 1) | end),
            keep.addr.eq(word),
            keep.data.eq(x.payload.as_value()),
            keep.en.eq(take),
            opening.eq(running & ~opened & (free != 0)),
            tile.valid.eq(take & pixel_end & full),
            tile.payload.columns.eq(count + 1),
            tile.payload.blocks.eq(groups),
            tile.payload.first.eq(1),  # its entries are the first again
            tile.payload.group_end.eq(1),
        ]
        m.d.sync += [
            free.eq(free + freed - opening),
            last_group.eq(groups - 1),  # steady long before the first pixel
            last_column.eq(d.in_width - 1),
            last_row.eq(d.in_height - 1),
            last_fill.eq(half - groups),
        ]
        with m.If(opening):
            m.d.sync += [
                opened.eq(1),
                fill.eq(0),
                count.eq(0),
            ]
        with m.If(take):
            m.d.sync += [
                word.eq(word + 1),
                fill.eq(fill + 1),
                group.eq(Mux(pixel_end, 0, group + 1)),
            ]
            with m.If(pixel_end):
                m.d.sync += [
                    count.eq(count + 1),
                    px.eq(Mux(row_end, 0, px + 1)),
                    py.eq(Mux(end, 0, py + row_end)),
                    opened.eq(~full),
                    running.eq(~end),
                ]
        with m.If(self.start):
            m.d.sync += running.eq(1)
        m.submodules.tiles = tiles = unit_queue(tile_layout(c))
        m.submodules.entry_tiles = entry_tiles = unit_queue(tile_layout(c))
        m.submodules.order_tiles = order_tiles = unit_queue(tile_layout(c))
        every_ready(m, tile, [tiles.i, entry_tiles.i, order_tiles.i])
        connect(m, entry_tiles.o, entries.tile)
        connect(m, order_tiles.o, order.tile)

        # -- roots, pixel by pixel, with their sums
        scale = data.StructLayout({"total": signed(TOTAL_BITS), "root": recip_layout()})
        m.submodules.scales = scales = Memory(shape=scale, depth=HALVES * c.pixels, init=[])
        m.submodules.totals = totals = StreamFifo(signed(TOTAL_BITS), 2 * self.roots)
        put, look = scales.write_port(), scales.read_port()
        slot, rooted, left = Signal(slot_bits), Signal(bits_for(HALVES * c.pixels)), Signal(bits_for(c.pixels))
        rooting = Signal()
        m.d.comb += [
            roots.i.payload.eq(moments.o.payload.spread),
            roots.i.valid.eq(moments.o.valid & totals.i.ready),
            totals.i.payload.eq(moments.o.payload.total),
            totals.i.valid.eq(moments.o.valid & roots.i.ready),
            moments.o.ready.eq(roots.i.ready & totals.i.ready),
            rooting.eq(roots.o.valid),
            roots.o.ready.eq(1),
            totals.o.ready.eq(rooting),
            put.addr.eq(slot),
            put.data.total.eq(totals.o.payload),
            put.data.root.eq(roots.o.payload),
            put.en.eq(rooting),
        ]
        m.d.sync += [
            slot.eq(slot + rooting),
            rooted.eq(rooted + rooting - left),
        ]

        # -- entries: the gain stays here, bias and shift go on. Sets of gains wait for their group
        m.submodules.later = later = StreamFifo(Scale(), 2 * lanes)
        m.submodules.gains = gains = StreamFifo(MULT_BITS * lanes, 4)
        arrived, waiting = Signal(bits_for(lanes)), Signal(MULT_BITS * lanes, reset_less=True)
        sets, started, entry = Signal(3), Signal(), Signal()
        complete = arrived == lanes
        connect(m, later.o, flipped(self.entry))
        m.d.comb += [
            entry.eq(entries.o.valid & later.i.ready & ~complete),
            entries.o.ready.eq(entry),
            later.i.valid.eq(entry),
            later.i.payload.bias.eq(entries.o.payload.bias),
            later.i.payload.mult.eq(1),
            later.i.payload.shift.eq(entries.o.payload.shift),
            gains.i.payload.eq(waiting),
            gains.i.valid.eq(complete),
        ]
        with m.If(gains.i.valid & gains.i.ready):
            m.d.sync += arrived.eq(0)
        with m.Elif(entry):
            m.d.sync += [
                arrived.eq(arrived + 1),
                waiting.eq(Cat(waiting[MULT_BITS:], entries.o.payload.mult)),
            ]
        m.d.sync += sets.eq(sets + (gains.i.valid & gains.i.ready) - started)

        # -- give: channel group by channel group, pixel by pixel
        m.submodules.out = out = CreditFifo(sums_layout(lanes), 32)
        connect(m, out.o, flipped(self.sums))
        base_word, base_slot = Signal(word_bits), Signal(slot_bits)
        at_word, at_slot, group_word = Signal(word_bits), Signal(slot_bits), Signal(word_bits)
        out_pixel, last_pixel, out_group = Signal(bits_for(c.pixels)), Signal(bits_for(c.pixels)), Signal(SIZE_BITS)
        active, begin, go, set_end, tile_end = (Signal(name=n) for n in ("active", "begin", "go", "set_end", "tile_end"))
        pixels = tiles.o.payload.columns
        m.d.comb += [
            begin.eq(~active & tiles.o.valid & (rooted >= pixels)),
            left.eq(Mux(begin, pixels, 0)),
            go.eq(active & out.credit & ((out_pixel != 0) | (sets != 0))),
            started.eq(go & (out_pixel == 0)),
            set_end.eq(out_pixel == last_pixel),
            tile_end.eq(go & set_end & (out_group == last_group)),
            freed.eq(tile_end),
            tiles.o.ready.eq(tile_end),
            out.spend.eq(go),
            again.addr.eq(at_word),
            again.en.eq(go),
            look.addr.eq(at_slot),
            look.en.eq(go),
        ]
        with m.If(begin):
            m.d.sync += [
                active.eq(1),
                *(s.eq(base_word) for s in (at_word, group_word)),
                at_slot.eq(base_slot),
                last_pixel.eq(pixels - 1),
                out_pixel.eq(0),
                out_group.eq(0),
            ]
        with m.If(go):
            m.d.sync += [
                out_pixel.eq(out_pixel + 1),
                at_word.eq(at_word + groups),
                at_slot.eq(at_slot + 1),
            ]
            with m.If(set_end):
                m.d.sync += [
                    out_pixel.eq(0),
                    out_group.eq(out_group + 1),
                    *(s.eq(group_word + 1) for s in (at_word, group_word)),
                    at_slot.eq(base_slot),
                ]
            with m.If(tile_end):
                m.d.sync += [
                    active.eq(0),
                    base_word.eq(at_word + 1),
                    base_slot.eq(at_slot + 1),
                ]

        # -- deviation, times its pixel's root, times its channel's gain
        m.submodules.normalise = normalise = Requantizer(lanes, Z_BITS, False, 1, acc_bits=DEVIATION_BITS)
        at_gain = 2 + Requantizer.LATENCY  # registers from what is read to z
        steps = at_gain + 1
        valid = [Signal(name=f"valid{k}") for k in range(steps + 1)]
        fresh = [Signal(name=f"fresh{k}") for k in range(steps + 1)]
        m.d.sync += [
            valid[0].eq(go),
            fresh[0].eq(started),
            *(b.eq(a) for s in (valid, fresh) for a, b in zip(s, s[1:], strict=False)),
        ]
        total, root1, root2 = (Signal(shape, name=n, reset_less=True) for n, shape in (
            ("total", signed(TOTAL_BITS)), ("root1", recip_layout()), ("root2", recip_layout())))
        held = Signal(MULT_BITS * lanes, reset_less=True)
        codes = data.View(group_layout(lanes), again.data)
        m.d.sync += [
            total.eq(look.data.total),
            root1.eq(look.data.root),
            root2.eq(root1),
        ]
        m.d.comb += normalise.valid.eq(valid[2])
        m.d.comb += gains.o.ready.eq(valid[at_gain - 1] & fresh[at_gain - 1])
        with m.If(gains.o.ready):
            m.d.sync += held.eq(gains.o.payload)
        for k in range(lanes):
            scaled = Signal(signed(TOTAL_BITS), name=f"scaled{k}", reset_less=True)
            deviation = Signal(signed(DEVIATION_BITS), name=f"deviation{k}", reset_less=True)
            product = Signal(signed(Z_BITS + MULT_BITS), name=f"product{k}", reset_less=True)
            m.d.sync += [
                scaled.eq(codes[k] * d.in_channels[:CHANNEL_BITS]),
                deviation.eq(scaled - total),
                product.eq(normalise.q[k] * held[MULT_BITS * k:MULT_BITS * (k + 1)].as_signed()),
            ]
            m.d.comb += [
                normalise.acc[k].eq(deviation),
                normalise.mult[k].eq(root2.recip),
                normalise.shift[k].eq(root2.shift),
                out.payload.data[k].eq(product),
            ]
        m.d.comb += [
            out.push.eq(valid[at_gain + 1]),
            out.payload.first.eq(fresh[at_gain + 1]),
        ]

        # -- codes to memory
        connect(m, flipped(self.codes), order.i)
        connect(m, order.o, packer.i)
        connect(m, packer.o, writer.i)
        connect(m, reader.mem_read, flipped(self.mem_read[0]))
        connect(m, entries.mem_read, flipped(self.mem_read[1]))
        connect(m, writer.mem_write, flipped(self.mem_write))
        connect(m, writer.done, flipped(self.done))
        return m
