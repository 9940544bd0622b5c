"""LAYERNORM: every pixel's channels, their mean taken off, over their deviation, scaled."""

from __future__ import annotations

from dataclasses import replace

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
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .array import sums_layout
from .bursts import BurstReader, TensorRows
from .entries import EntryStream
from .epilogue import CODE_BITS
from .groups import GroupSplitter, group_layout, pixel_beats, pixel_groups
from .places import Places
from .plan import ADDRESS_BITS, SIZE_BITS, conv_layout, every_ready, tile_layout
from .planner import descriptor_layout
from .root import SPREAD_BITS, ReciprocalRoots, recip_layout
from .writer import CodeWriter

__all__ = ["LayerNormalisation"]

CHANNEL_BITS = 11  # 1024
TOTAL_BITS = CODE_BITS + CHANNEL_BITS - 1  # of a pixel's sum
SQUARES_BITS = 2 * (CODE_BITS - 1) + CHANNEL_BITS - 1  # of its squares' sum
DEVIATION_BITS = TOTAL_BITS + 1
HALF_BITS = 13  # a sum is squared in two digits
EPS_BITS = 48
HALVES = 2
LARGEST_PIXELS = 4  # pixels of max_channels that a half of the buffer holds
TILES = 4  # that units may be apart


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
        m.d.sync += groups.eq(pixel_groups(self.channels, lanes) - 1)
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


class LayerNormalisation(wiring.Component):
    """``start``: does what a checked LAYERNORM ``descriptor`` says; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``descriptor`` steady from three cycles before it until ``done``. ``mem_read``: 0 x,
    1 entries. ``sums``, ``entry``, ``codes``: an :class:`~nearflash_hw.tensor.epilogue.Epilogue` of ``config.lanes``, whose
    ``low`` and ``high`` are the descriptor's and everything else 0: it adds the bias, shifts and clamps (mult 1), here are
    moments, deviation and gain.

    Pixels are taken as they come and kept, as many as half a buffer holds (LARGEST_PIXELS of ``max_channels``, at most
    ``pixels``); while the next ones come they leave in the order of a convolution (``lanes`` channels, pixel), so that the
    epilogue needs one entry a cycle. As fast as x is read (``lanes`` channels a cycle, 16-bit ones of a beat's lanes every
    other), while ReciprocalRoot.CYCLES / ``roots`` cycles a pixel are enough for the roots; a group takes as many cycles as
    it has lanes, at least.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int, *, roots: int = 4):
        self.config, self.beat_bytes, self.roots = config, beat_bytes, roots
        super().__init__({
            "descriptor": In(descriptor_layout()),
            "start": In(1),
            "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
            "mem_read": Out(MemReadSignature(beat_bytes)).array(2),
            "mem_write": Out(MemWriteSignature(beat_bytes)),
            "sums": Out(stream.Signature(sums_layout(config.lanes))),
            "entry": Out(stream.Signature(Scale())),
            "codes": In(stream.Signature(group_layout(config.lanes))),
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
        m.submodules.places = places = Places(by_group, "y")
        m.submodules.writer = writer = CodeWriter(lanes, beat)
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
        ]
        connect(m, rows.o, reader.run)
        connect(m, reader.o, splitter.i)

        # -- what places and entries need of a plan
        groups, pixel = Signal(SIZE_BITS), Signal(SIZE_BITS)
        plan = Signal(conv_layout())
        m.d.sync += [
            groups.eq(pixel_groups(d.in_channels, lanes)),
            pixel.eq(pixel_beats(d.in_channels, 0, beat) << clog2(beat)),
        ]
        m.d.comb += [
            plan.channels.eq(d.in_channels),
            plan.shuffle.eq(1),
            plan.y.right.eq(pixel),
            plan.entries.eq(d.entries),
            plan.entry_beats.eq(d.in_channels << clog2(ENTRY_BYTES // beat)),
            entries.plan.eq(plan),
            places.plan.eq(plan),
        ]

        # -- take: pixels into the buffer and to their moments, tile by tile
        half = LARGEST_PIXELS * c.max_channels // lanes
        word_bits, slot_bits = index_bits(HALVES * half), index_bits(HALVES * c.pixels)
        m.submodules.buffer = buffer = Memory(shape=CODE_BITS * lanes, depth=HALVES * half, init=[])
        keep, again = buffer.write_port(), buffer.read_port()
        running, opened = Signal(), Signal()
        free, freed = Signal(bits_for(HALVES), init=HALVES), Signal()
        fill, count, group = Signal(range(half + 1)), Signal(bits_for(c.pixels)), Signal(SIZE_BITS)
        px, py, word = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(word_bits)
        y_at, y_next = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
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
            pixel_end.eq(group == groups - 1),
            row_end.eq(px == d.in_width - 1),
            end.eq(row_end & (py == d.in_height - 1)),
            full.eq((fill + groups >= half) | (count == c.pixels - 1) | end),
            keep.addr.eq(word),
            keep.data.eq(x.payload.as_value()),
            keep.en.eq(take),
            opening.eq(running & ~opened & (free != 0)),
            tile.valid.eq(take & pixel_end & full),
            tile.payload.rows.eq(1),
            tile.payload.columns.eq(count + 1),
            tile.payload.y.eq(y_at),
            tile.payload.blocks.eq(groups),
            tile.payload.first.eq(1),  # its entries are the first again
            tile.payload.group_end.eq(1),
            tile.payload.end.eq(end),
        ]
        m.d.sync += free.eq(free + freed - opening)
        with m.If(opening):
            m.d.sync += [
                opened.eq(1),
                fill.eq(0),
                count.eq(0),
                y_at.eq(y_next),
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
                    y_next.eq(y_next + pixel),
                    opened.eq(~full),
                    running.eq(~end),
                ]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                y_next.eq(d.y),
            ]
        m.submodules.tiles = tiles = StreamFifo(tile_layout(c), TILES)
        m.submodules.entry_tiles = entry_tiles = StreamFifo(tile_layout(c), TILES)
        m.submodules.place_tiles = place_tiles = StreamFifo(tile_layout(c), TILES)
        every_ready(m, tile, [tiles.i, entry_tiles.i, place_tiles.i])
        connect(m, entry_tiles.o, entries.tile)
        connect(m, place_tiles.o, places.tile)

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
        out_pixel, out_group = Signal(bits_for(c.pixels)), Signal(SIZE_BITS)
        active, begin, go, set_end, tile_end = (Signal(name=n) for n in ("active", "begin", "go", "set_end", "tile_end"))
        pixels = tiles.o.payload.columns
        m.d.comb += [
            begin.eq(~active & tiles.o.valid & (rooted >= pixels)),
            left.eq(Mux(begin, pixels, 0)),
            go.eq(active & out.credit & ((out_pixel != 0) | (sets != 0))),
            started.eq(go & (out_pixel == 0)),
            set_end.eq(out_pixel == pixels - 1),
            tile_end.eq(go & set_end & (out_group == groups - 1)),
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
        connect(m, places.o, writer.place)
        connect(m, flipped(self.codes), writer.codes)
        connect(m, reader.mem_read, flipped(self.mem_read[0]))
        connect(m, entries.mem_read, flipped(self.mem_read[1]))
        connect(m, writer.mem_write, flipped(self.mem_write))
        failed = Signal()
        m.d.comb += [
            self.done.valid.eq(writer.done.valid),
            writer.done.ready.eq(self.done.ready),
            self.done.payload.error.eq(writer.done.payload.error | failed),
        ]
        with m.If(reader.error | entries.error):
            m.d.sync += failed.eq(1)
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += failed.eq(0)
        return m
