"""DEPTHWISE: every channel convolved with its own kernel."""

from __future__ import annotations

from dataclasses import replace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import TensorConfig

from ..interfaces import bits_for, index_bits
from ..primitives.credit_fifo import CreditFifo
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .array import sums_layout
from .entries import EntryStream
from .groups import pieces, pixel_beats
from .input_buffer import read_layout
from .places import Places
from .plan import SIZE_BITS, SMALL_BITS, conv_layout, every_ready, half_words, tile_layout, unit_queue
from .tiles import TileWalk
from .unit import epilogue_ports, input_ports, unit_ports
from .writer import CodeWriter

__all__ = ["DepthwiseArray", "DepthwiseConvolution"]

TAPS = 3  # of a kernel row at a time
BANKS = 2  # of accumulators: one is worked on, one leaves
PASS_CYCLES = 5  # from a pass to the next at least, so that an accumulator is written before it is read again
SUM_BITS = 21  # 64 taps of 127 x 127


class DepthwiseWeights(wiring.Component):
    """``start``: reads the weights of ``plan`` once; then gives, over and over, those of the first block's first pass, its
    next pass, ..., the next block's: ``w`` [TAPS][depthwise], the latest tap last, zeros before the first. ``valid``:
    they are here; ``take``: on to the next."""

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            "blocks": In(SIZE_BITS),
            "start": In(1),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "w": Out(data.ArrayLayout(data.ArrayLayout(signed(8), config.depthwise), TAPS)),
            "valid": Out(1),
            "take": In(1),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan, width, beat = self.plan, self.config.depthwise, self.beat_bytes
        req, rsp = self.mem_read.req, self.mem_read.rsp
        # a tap's last block may be a piece of a word
        depth = self.config.depthwise_weight_bytes // width + 64
        m.submodules.memory = memory = Memory(shape=8 * width, depth=depth, init=[])
        write, read = memory.write_port(granularity=8 * beat), memory.read_port()
        at_bits = index_bits(depth)

        # -- load
        tap_beats, taps = Signal(SIZE_BITS), Signal(2 * SMALL_BITS)
        per_word = width // beat
        fill, lane, number = Signal(at_bits), Signal(range(max(2, per_word))), Signal(SIZE_BITS)
        loaded, tap_end, last_beat = Signal(), Signal(), Signal(SIZE_BITS)
        m.d.sync += [
            tap_beats.eq(pixel_beats(plan.channels, 0, beat)),
            last_beat.eq(tap_beats - 1),
            taps.eq(plan.kernel_h * plan.kernel_w),
            req.payload.beats.eq(taps * tap_beats),
        ]
        m.d.comb += [
            req.payload.addr.eq(plan.weights),
            rsp.ready.eq(1),
            self.error.eq(rsp.valid & rsp.payload.error),
            tap_end.eq(number == last_beat),
            write.addr.eq(fill),
            write.data.eq(Cat(*[rsp.payload.data] * per_word)),
            *(write.en[k].eq(rsp.valid & (lane == k)) for k in range(per_word)),
        ]
        with m.If(req.ready):
            m.d.sync += req.valid.eq(0)
        with m.If(rsp.valid):
            m.d.sync += [
                lane.eq(lane + 1),
                number.eq(number + 1),
            ]
            with m.If(tap_end | (lane == per_word - 1)):
                m.d.sync += [
                    lane.eq(0),
                    fill.eq(fill + 1),
                ]
            with m.If(tap_end):
                m.d.sync += number.eq(0)
            with m.If(rsp.payload.last):
                m.d.sync += loaded.eq(1)

        # -- give: a tap a cycle, in their order, is shifted in
        at, block = Signal(at_bits), Signal(SIZE_BITS)
        kx, ky, count = Signal(SMALL_BITS), Signal(SMALL_BITS), Signal(range(TAPS + 1))
        go, came, ending = Signal(), Signal(), Signal()
        row_end, block_end, pass_end = Signal(), Signal(), Signal()
        complete = Signal()  # all of this pass asked for
        m.d.comb += [
            row_end.eq(kx == plan.kernel_w - 1),
            pass_end.eq(row_end | (count == TAPS - 1)),
            block_end.eq(row_end & (ky == plan.kernel_h - 1)),
            go.eq(loaded & ~complete),
            read.addr.eq(at),
            read.en.eq(go),
        ]
        m.d.sync += [
            came.eq(go),
            ending.eq(go & pass_end),
        ]
        with m.If(go):
            m.d.sync += [
                at.eq(at + self.blocks),
                count.eq(count + 1),
                kx.eq(Mux(row_end, 0, kx + 1)),
                complete.eq(pass_end),
            ]
            with m.If(row_end):
                m.d.sync += ky.eq(ky + 1)
            with m.If(block_end):
                last = block == self.blocks - 1
                m.d.sync += [
                    ky.eq(0),
                    block.eq(Mux(last, 0, block + 1)),
                    at.eq(Mux(last, 0, block + 1)),
                ]
        with m.If(came):
            m.d.sync += self.w.as_value().eq(Cat(self.w.as_value()[8 * width:], read.data))
        with m.If(ending):
            m.d.sync += self.valid.eq(1)
        with m.If(self.take):
            m.d.sync += [
                self.w.as_value().eq(0),
                self.valid.eq(0),
                complete.eq(0),
                count.eq(0),
            ]
        with m.If(self.start):
            m.d.sync += [
                req.valid.eq(1),
                loaded.eq(0),
                *(s.eq(0) for s in (fill, lane, number, at, block, kx, ky, count, complete, came, ending, self.valid)),
                self.w.as_value().eq(0),
            ]
        return m


class DepthwiseArray(wiring.Component):
    """``depthwise`` x TAPS multipliers: for each ``tile``, once ``available``, reads it from
    :class:`~nearflash_hw.tensor.input_buffer.InputTiles` and gives the sums of its channels, in the order (block of
    ``depthwise`` channels, ``lanes`` of them, pixel), as :class:`~nearflash_hw.tensor.array.PixelArray` does. What lies
    outside the input is ``pad_value``. ``start``: fetches the weights of ``plan``, before which no tile is served.

    A block takes a pass for every TAPS taps of every kernel row; a pass reads each of the tile's input rows' pixels once, a
    cycle each, and takes a cycle beside.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        width, columns, lanes = config.depthwise, config.columns, config.lanes
        if width % beat_bytes or width % lanes or columns % width:
            raise ValueError(f"depthwise = {width}: must be a multiple of beat_bytes ({beat_bytes}) and lanes ({lanes}), "
                             f"and divide columns ({columns})")
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            "blocks": In(SIZE_BITS),
            "start": In(1),
            "tile": In(stream.Signature(tile_layout(config))),
            "available": In(1),
            "read": Out(read_layout(config)),
            "data": In(8 * columns),
            "release": Out(1),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(stream.Signature(sums_layout(lanes))),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, plan, tile = self.config, self.plan, self.tile.payload
        width, per_word = c.depthwise, c.columns // c.depthwise
        m.submodules.weights = weights = DepthwiseWeights(c, self.beat_bytes)
        connect(m, weights.mem_read, flipped(self.mem_read))
        m.d.comb += [
            weights.plan.eq(plan),
            weights.blocks.eq(self.blocks),
            weights.start.eq(self.start),
            self.error.eq(weights.error),
        ]

        # -- which word next: block, pass (kernel row, taps), output row, pixel
        place = index_bits(half_words(c))
        address, row_address, pass_address, kernel_address = (
            Signal(place, name=f"{n}address") for n in ("", "row_", "pass_", "kernel_"))
        ix, pass_x, iy, pass_y = (Signal(signed(SIZE_BITS + 1), name=n) for n in ("ix", "pass_x", "iy", "pass_y"))
        word, part = Signal.like(plan.words), Signal(range(max(2, per_word)))  # of the block
        block = Signal(SIZE_BITS)
        ky, kx = Signal(SMALL_BITS), Signal(SMALL_BITS)
        py, px, pixel = Signal.like(tile.rows), Signal.like(tile.columns), Signal(index_bits(c.pixels))
        right, bottom, last_block = (Signal.like(v, name=n) for v, n in (
            (tile.columns, "right"), (tile.rows, "bottom"), (block, "last_block")))  # the last ones
        wait = Signal(SMALL_BITS)  # pixels until an output's last one
        taps_left, taps = Signal(signed(SMALL_BITS + 1)), Signal(SMALL_BITS)
        age = Signal(range(PASS_CYCLES))  # of the pass
        free, bank = Signal(bits_for(BANKS), init=BANKS), Signal()
        freed, begin, go, emit = Signal(), Signal(), Signal(), Signal()
        row_end, pass_end, taps_end, block_end, tile_end = (Signal(name=f"{n}_end") for n in
                                                            ("row", "pass", "taps", "block", "tile"))
        first_pass, fresh = Signal(), Signal()
        m.d.comb += [
            taps_left.eq(plan.kernel_w - kx),
            taps_end.eq(taps_left <= TAPS),
            taps.eq(Mux(taps_end, taps_left, TAPS)),
            first_pass.eq((ky == 0) & (kx == 0)),
            emit.eq(wait == 0),
            row_end.eq(emit & (px == right)),
            pass_end.eq(row_end & (py == bottom)),
            block_end.eq(pass_end & taps_end & (ky == plan.kernel_h - 1)),
            tile_end.eq(go & block_end & (block == last_block)),
            self.read.en.eq(go),
            self.read.address.eq(address),
            self.release.eq(tile_end),
            self.tile.ready.eq(tile_end),
        ]
        m.d.sync += free.eq(free + freed - (begin & first_pass))
        with m.If(age != PASS_CYCLES - 1):
            m.d.sync += age.eq(age + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    *(s.eq(0) for s in (pass_address, kernel_address, word, part, block, ky, kx)),
                    right.eq(tile.columns - 1),
                    bottom.eq(tile.rows - 1),
                    last_block.eq(self.blocks - 1),
                    pass_x.eq(tile.ix),
                    pass_y.eq(tile.iy),
                ]
                with m.If(self.tile.valid & self.available):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.comb += begin.eq(weights.valid & (age == PASS_CYCLES - 1) & ((free != 0) | ~first_pass))
                m.d.sync += [
                    *(s.eq(pass_address) for s in (address, row_address)),
                    ix.eq(pass_x),
                    iy.eq(pass_y),
                    *(s.eq(0) for s in (px, py, pixel)),
                    wait.eq(taps - 1),
                    fresh.eq(1),
                ]
                with m.If(begin):
                    m.d.sync += age.eq(0)
                    m.next = "PIXELS"
            with m.State("PIXELS"):
                m.d.comb += go.eq(1)
                m.d.sync += [
                    fresh.eq(0),
                    address.eq(address + plan.words),
                    ix.eq(ix + 1),
                    wait.eq(Mux(emit, plan.stride, wait) - 1),
                ]
                with m.If(emit):
                    m.d.sync += [
                        px.eq(px + 1),
                        pixel.eq(pixel + 1),
                    ]
                with m.If(row_end):
                    m.d.sync += [
                        px.eq(0),
                        py.eq(py + 1),
                        *(s.eq(row_address + tile.down) for s in (address, row_address)),
                        ix.eq(pass_x),
                        iy.eq(iy + plan.stride),
                        wait.eq(taps - 1),
                    ]
                with m.If(pass_end):
                    m.next = "PASS"
                    with m.If(~taps_end):
                        m.d.sync += [
                            kx.eq(kx + TAPS),
                            pass_address.eq((pass_address + plan.words + (plan.words << 1))[:place]),
                            pass_x.eq(pass_x + TAPS),
                        ]
                    with m.Else():
                        m.d.sync += [
                            kx.eq(0),
                            ky.eq(ky + 1),
                            *(s.eq(kernel_address + tile.line) for s in (pass_address, kernel_address)),
                            pass_x.eq(tile.ix),
                            pass_y.eq(pass_y + 1),
                        ]
                with m.If(block_end):
                    last_part = part == per_word - 1
                    m.d.sync += [
                        ky.eq(0),
                        block.eq(block + 1),
                        part.eq(Mux(last_part, 0, part + 1)),
                        word.eq(word + last_part),
                        *(s.eq(word + last_part) for s in (pass_address, kernel_address)),
                        pass_y.eq(tile.iy),
                        bank.eq(~bank),
                    ]
                with m.If(tile_end):
                    m.next = "IDLE"

        # -- the latest pixels of a row, products, their sum, the accumulator
        tag = data.StructLayout({"valid": 1, "fresh": 1, "padding": 1, "part": part.shape(), "emit": 1, "first": 1, "end": 1,
                                 "bank": 1, "pixel": index_bits(c.pixels)})
        tags = [Signal(tag, name=f"tag{s}") for s in range(1, 6)]
        outside = (iy < 0) | (iy >= plan.in_height) | (ix < 0) | (ix >= plan.in_width)
        m.d.sync += [
            tags[0].eq(Cat(go, fresh, outside, part, go & emit, first_pass, go & block_end, bank, pixel)),
            *(b.eq(a) for a, b in zip(tags, tags[1:], strict=False)),
        ]
        came, summed, added, held = tags[0], tags[2], tags[3], tags[4]
        window = Signal(data.ArrayLayout(data.ArrayLayout(signed(8), width), TAPS), reset_less=True)
        w = Signal.like(weights.w, reset_less=True)
        value = Mux(came.padding, Cat(*[plan.pad_value] * width),
                    self.data.word_select(came.part, 8 * width) if per_word > 1 else self.data)
        with m.If(came.valid):
            m.d.sync += window.as_value().eq(Cat(window.as_value()[8 * width:], value))
        m.d.comb += weights.take.eq(came.valid & came.fresh)
        with m.If(weights.take):
            m.d.sync += w.eq(weights.w)
        layout = data.ArrayLayout(signed(SUM_BITS), width)
        m.submodules.memory = memory = Memory(shape=layout.size, depth=BANKS * c.pixels, init=[])
        write, read, leave = memory.write_port(), memory.read_port(), memory.read_port()
        total, old = Signal(layout, reset_less=True), data.View(layout, read.data)
        for k in range(width):
            products = [Signal(signed(15), name=f"product{k}_{t}", reset_less=True) for t in range(TAPS)]
            line = Signal(signed(17), name=f"line{k}", reset_less=True)
            m.d.sync += [
                *(p.eq(window[t][k] * w[t][k]) for t, p in enumerate(products)),
                line.eq(sum(products)),
                total[k].eq(line + Mux(added.first, 0, old[k])),
            ]
        m.d.comb += [
            read.addr.eq(Cat(summed.pixel, summed.bank)),
            read.en.eq(summed.emit),
            write.addr.eq(Cat(held.pixel, held.bank)),
            write.data.eq(total.as_value()),
            write.en.eq(held.emit),
        ]

        # -- a block's sums leave while the next one is worked on
        parts = width // c.lanes
        job = data.StructLayout({"bank": 1, "last": index_bits(c.pixels)})
        m.submodules.jobs = jobs = StreamFifo(job, BANKS)
        m.submodules.out = out = CreditFifo(self.o.payload.shape(), 8)
        out_pixel, out_part, shown = Signal(index_bits(c.pixels)), Signal(range(max(2, parts))), Signal(range(max(2, parts)))
        take, set_end, read_out, first = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            jobs.i.valid.eq(held.end),
            jobs.i.payload.bank.eq(held.bank),
            jobs.i.payload.last.eq(held.pixel),
            take.eq(jobs.o.valid & out.credit),
            set_end.eq(out_pixel == jobs.o.payload.last),
            leave.addr.eq(Cat(out_pixel, jobs.o.payload.bank)),
            leave.en.eq(take),
            out.spend.eq(take),
            out.push.eq(read_out),
            freed.eq(take & set_end & (out_part == parts - 1)),
            jobs.o.ready.eq(freed),
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
            out.payload.first.eq(first),
        ]
        m.d.sync += [
            read_out.eq(take),
            shown.eq(out_part),
            first.eq(out_pixel == 0),
        ]
        with m.If(take):
            m.d.sync += out_pixel.eq(Mux(set_end, 0, out_pixel + 1))
            with m.If(set_end):
                m.d.sync += out_part.eq(Mux(freed, 0, out_part + 1))
        bits = c.lanes * SUM_BITS
        chosen = data.View(data.ArrayLayout(signed(SUM_BITS), c.lanes),
                           leave.data.word_select(shown, bits) if parts > 1 else leave.data)
        m.d.comb += [out.payload.data[k].eq(chosen[k]) for k in range(c.lanes)]
        return m


class DepthwiseConvolution(wiring.Component):
    """``start``: does what ``plan`` of a checked DEPTHWISE descriptor says, as
    :class:`~nearflash_hw.tensor.planner.ConvPlanner` makes it; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``plan`` steady from three cycles before it until ``done``. ``mem_read``: 0 weights,
    1 entries. ``x_tile`` ...: an :class:`~nearflash_hw.tensor.input_buffer.InputTiles` of ``plan``; ``sums``, ``entry``,
    ``codes``: an :class:`~nearflash_hw.tensor.epilogue.Epilogue` of ``config.lanes``, whose control and table are the
    descriptor's. The weights must fit ``config.depthwise_weight_bytes``.

    Cycles of a tile: see :class:`DepthwiseArray`; its input is read meanwhile, its output written.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            **unit_ports(beat_bytes, 2),
            **input_ports(config),
            **epilogue_ports(config.lanes),
        })

    def elaborate(self, platform):
        m = Module()
        c, beat = self.config, self.beat_bytes
        by_block = replace(c, rows=c.depthwise)  # the units that go by output blocks
        m.submodules.walk = walk = TileWalk(c)
        m.submodules.array = array = DepthwiseArray(c, beat)
        m.submodules.entries = entries = EntryStream(by_block, beat)
        m.submodules.places = places = Places(by_block, "y")
        m.submodules.writer = writer = CodeWriter(c.lanes, beat)

        plan, blocks = Signal(conv_layout()), Signal(SIZE_BITS)
        m.d.sync += blocks.eq(pieces(self.plan.channels, c.depthwise))
        m.d.comb += [
            plan.eq(self.plan),
            plan.blocks.eq(blocks),
            plan.group.eq(blocks),
            array.blocks.eq(blocks),
            array.start.eq(self.start),
            walk.plan.eq(plan),
            walk.start.eq(self.start),
            entries.start.eq(self.start),
        ]
        users = [array, entries, places]
        m.d.comb += [user.plan.eq(plan) for user in users]
        queues = []
        for k, tile in enumerate([flipped(self.x_tile), *(user.tile for user in users)]):
            m.submodules[f"tiles{k}"] = queue = unit_queue(tile_layout(c))
            connect(m, queue.o, tile)
            queues.append(queue.i)
        every_ready(m, walk.o, queues)
        m.d.comb += [
            array.available.eq(self.x_available),
            self.x_read.eq(array.read),
            array.data.eq(self.x_data),
            self.x_release.eq(array.release),
            writer.wide.eq(plan.y.wide),
        ]
        connect(m, array.o, flipped(self.sums))
        connect(m, entries.o, flipped(self.entry))
        connect(m, places.o, writer.place)
        connect(m, flipped(self.codes), writer.codes)
        for k, user in enumerate((array, entries)):
            connect(m, user.mem_read, flipped(self.mem_read[k]))
        connect(m, writer.mem_write, flipped(self.mem_write))
        m.d.comb += writer.failed.eq(Cat(self.x_error, array.error, entries.error).any())
        connect(m, writer.done, flipped(self.done))
        return m
