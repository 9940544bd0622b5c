"""POOL: sums of squares of pixels, rescaled: average pooling."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import TensorConfig

from ..engine.streams import clog2
from ..interfaces import index_bits
from .array import sums_layout
from .bursts import BurstReader, BurstWriter, run_layout
from .epilogue import CODE_BITS
from .groups import GroupPacker, GroupSplitter, group_layout, pieces, pixel_beats
from .one_entry import OneEntry
from .plan import ADDRESS_BITS, SIZE_BITS, SMALL_BITS
from .planner import descriptor_layout
from .unit import epilogue_ports, unit_ports

__all__ = ["Pooling"]

SIDE = 8  # of the largest square
SUM_BITS = CODE_BITS + clog2(SIDE * SIDE)


class Squares(wiring.Component):
    """``start``: the runs of an input of squares of ``side`` pixels, square by square, row by row; all steady from three
    cycles before until the last is taken. ``pixel``: beats of one."""

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(1),
            "at": In(ADDRESS_BITS),
            "out_height": In(SIZE_BITS),
            "out_width": In(SIZE_BITS),
            "in_width": In(SIZE_BITS),
            "side": In(SMALL_BITS),
            "pixel": In(SIZE_BITS),
            "o": Out(stream.Signature(run_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        run, shift = self.o.payload, clog2(self.beat_bytes)
        line = Signal(ADDRESS_BITS, reset_less=True)  # beats of an input row
        across, down, left = Signal(SIZE_BITS), Signal(SMALL_BITS), Signal(SIZE_BITS)  # squares, rows; rows of squares left
        square, below = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)  # this one's first pixel; the next row's first square
        square_end, row_end, step = Signal(), Signal(), Signal()
        next_row, next_square = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        m.d.sync += [
            run.beats.eq(self.side * self.pixel),
            line.eq(self.in_width * self.pixel),
        ]
        m.d.comb += [
            self.o.valid.eq(left != 0),
            step.eq(self.o.valid & self.o.ready),
            square_end.eq(down == self.side - 1),
            row_end.eq(square_end & (across == self.out_width - 1)),
            next_row.eq(run.address + (line << shift)),
            next_square.eq(Mux(row_end, Mux(across == 0, next_row, below), square + (run.beats << shift))),
        ]
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.out_height),
                across.eq(0),
                down.eq(0),
                *(s.eq(self.at) for s in (run.address, square)),
            ]
        with m.Elif(step):
            m.d.sync += [
                down.eq(Mux(square_end, 0, down + 1)),
                run.address.eq(Mux(square_end, next_square, next_row)),
                left.eq(left - row_end),
            ]
            with m.If(square_end):
                m.d.sync += [
                    square.eq(next_square),
                    across.eq(Mux(row_end, 0, across + 1)),
                ]
                with m.If(across == 0):
                    m.d.sync += below.eq(next_row)
        return m


class SquareSums(wiring.Component):
    """Sums of ``i``, ``groups`` of lanes a pixel, over squares of ``side`` x ``side`` pixels, as they come: after a square's
    last pixel's group its sum. ``first``: with the first sum after ``start``. A group a cycle."""

    def __init__(self, lanes: int, max_groups: int):
        self.lanes, self.max_groups = lanes, max_groups
        super().__init__({
            "start": In(1),
            "groups": In(SIZE_BITS),
            "side": In(SMALL_BITS),
            "i": In(stream.Signature(group_layout(lanes))),
            "o": Out(stream.Signature(sums_layout(lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        bits = index_bits(self.max_groups)
        layout = data.ArrayLayout(signed(SUM_BITS), self.lanes)
        m.submodules.memory = memory = Memory(shape=layout.size, depth=self.max_groups, init=[])
        write, read = memory.write_port(), memory.read_port()

        # -- which of the square's pixels
        group, x, y = Signal(bits), Signal(SMALL_BITS), Signal(SMALL_BITS)
        pixel_end, line_end, take = Signal(), Signal(), Signal()
        m.d.comb += [
            pixel_end.eq(group == self.groups - 1),
            line_end.eq(x == self.side - 1),
            take.eq(self.i.valid & self.i.ready),
        ]
        with m.If(take):
            m.d.sync += group.eq(Mux(pixel_end, 0, group + 1))
            with m.If(pixel_end):
                m.d.sync += x.eq(Mux(line_end, 0, x + 1))
                with m.If(line_end):
                    m.d.sync += y.eq(Mux(y == self.side - 1, 0, y + 1))

        # -- read, add, write: all wait when a sum can't leave. A group's last two sums aren't in memory yet.
        tag = data.StructLayout({"valid": 1, "first": 1, "last": 1, "group": bits})
        tags = [Signal(tag, name=f"tag{s}") for s in range(3)]
        values, total, former = Signal(self.i.payload.shape(), reset_less=True), Signal(layout), Signal(layout)
        move, begun = Signal(), Signal()
        read_tag, sum_tag, former_tag = tags
        old = data.View(layout, Mux(sum_tag.group == read_tag.group, total.as_value(),
                                    Mux(former_tag.group == read_tag.group, former.as_value(), read.data)))
        m.d.comb += [
            self.o.valid.eq(sum_tag.valid & sum_tag.last),
            self.o.payload.first.eq(~begun),
            *(a.eq(b) for a, b in zip(self.o.payload.data, total, strict=True)),
            move.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(move),
            read.addr.eq(group),
            read.en.eq(move),
            write.addr.eq(sum_tag.group),
            write.data.eq(total.as_value()),
            write.en.eq(move & sum_tag.valid),
        ]
        with m.If(move):
            m.d.sync += [
                read_tag.valid.eq(take),
                read_tag.first.eq((x == 0) & (y == 0)),
                read_tag.last.eq(line_end & (y == self.side - 1)),
                read_tag.group.eq(group),
                values.eq(self.i.payload),
                sum_tag.valid.eq(read_tag.valid),
                sum_tag.last.eq(read_tag.last),
            ]
            with m.If(read_tag.valid):
                m.d.sync += [
                    sum_tag.group.eq(read_tag.group),
                    former_tag.group.eq(sum_tag.group),
                    former.eq(total),
                    *(total[k].eq(values[k] + Mux(read_tag.first, 0, old[k])) for k in range(self.lanes)),
                ]
        with m.If(self.start):
            m.d.sync += begun.eq(0)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += begun.eq(1)
        return m


class Pooling(wiring.Component):
    """``start``: does what a checked POOL ``descriptor`` says; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``descriptor`` steady from three cycles before it until ``done``. ``sums``,
    ``entry``, ``codes``: an :class:`~nearflash_hw.tensor.epilogue.Epilogue` of ``config.lanes``, whose control is the
    descriptor's.

    Reads every pixel once, square by square, the rows of a square in bursts: ``lanes`` channels of a pixel a cycle, as fast
    as beats come; memories' latencies and the epilogue's beside it. A row of a square takes at least two cycles.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "descriptor": In(descriptor_layout()),
            **unit_ports(beat_bytes, 1),
            **epilogue_ports(config.lanes),
        })

    def elaborate(self, platform):
        m = Module()
        d, lanes, beat = self.descriptor, self.config.lanes, self.beat_bytes
        m.submodules.squares = squares = Squares(beat)
        m.submodules.reader = reader = BurstReader(beat)
        m.submodules.splitter = splitter = GroupSplitter(lanes, beat)
        m.submodules.adder = adder = SquareSums(lanes, self.config.max_channels // lanes)
        m.submodules.entries = entries = OneEntry(lanes)
        m.submodules.packer = packer = GroupPacker(lanes, beat)
        m.submodules.writer = writer = BurstWriter(beat)
        m.d.comb += [
            *(unit.start.eq(self.start) for unit in (squares, adder, entries, writer)),
            squares.at.eq(d.x),
            squares.out_height.eq(d.out_height),
            squares.out_width.eq(d.out_width),
            squares.in_width.eq(d.in_width),
            squares.side.eq(d.stride),
            squares.pixel.eq(pixel_beats(d.in_channels, d.x16, beat)),
            splitter.channels.eq(d.in_channels),
            splitter.wide.eq(d.x16),
            adder.groups.eq(pieces(d.in_channels, lanes)),
            adder.side.eq(d.stride),
            entries.mult.eq(d.mult),
            entries.shift.eq(d.shift),
            packer.channels.eq(d.in_channels),
            packer.wide.eq(d.y16),
            packer.height.eq(d.out_height),
            packer.width.eq(d.out_width),
            writer.address.eq(d.y),
            writer.failed.eq(reader.error),
        ]
        connect(m, squares.o, reader.run)
        connect(m, reader.o, splitter.i)
        connect(m, splitter.o, adder.i)
        connect(m, adder.o, flipped(self.sums))
        connect(m, entries.o, flipped(self.entry))
        connect(m, flipped(self.codes), packer.i)
        connect(m, packer.o, writer.i)
        connect(m, reader.mem_read, flipped(self.mem_read[0]))
        connect(m, writer.mem_write, flipped(self.mem_write))
        connect(m, writer.done, flipped(self.done))
        return m
