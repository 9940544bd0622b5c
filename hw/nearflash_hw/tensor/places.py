"""Where the outputs of a tile lie in DRAM, in the order in which they are computed."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from ..interfaces import bits_for
from .plan import ADDRESS_BITS, SIZE_BITS, SMALL_BITS, conv_layout, tile_layout

__all__ = ["Places", "place_layout"]


def place_layout(lanes: int) -> data.StructLayout:
    """``lanes`` neighbouring channels of a pixel, of which ``count`` exist (0: none, ``address`` is undefined). ``last``: no
    channel of the pixel comes after them; ``end``: nothing of the descriptor."""
    return data.StructLayout({"address": ADDRESS_BITS, "count": bits_for(lanes), "last": 1, "end": 1})


class Places(wiring.Component):
    """For each ``tile``, its places in the tensor ``surface`` ("y" or "r" of the plan), in the order output block,
    ``lanes`` of its rows, pixel.

    Output block after output block fills the channels of a pixel, then, shuffled, those of the next pixel of the square. A
    place a cycle; ``lanes`` channels later two cycles' pause.
    """

    def __init__(self, config: TensorConfig, surface: str):
        self.config, self.surface = config, surface
        super().__init__({
            "plan": In(conv_layout()),
            "tile": In(stream.Signature(tile_layout(config))),
            "o": Out(stream.Signature(place_layout(config.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        c, plan, tile, o = self.config, self.plan, self.tile.payload, self.o
        step = plan[self.surface]
        # of the pixel's square: where it is from the tile's on, its row's begin, and which
        spot = data.StructLayout({"offset": ADDRESS_BITS, "line": ADDRESS_BITS, "column": SMALL_BITS, "channel": SIZE_BITS})
        begin, at = Signal(spot), Signal(spot)
        base, row, address = (Signal(ADDRESS_BITS, name=n) for n in ("base", "row", "address"))
        part, block = Signal(range(max(2, c.rows // c.lanes))), Signal.like(tile.blocks)
        py, px, bottom, right = (Signal.like(v, name=n) for v, n in (
            (tile.rows, "py"), (tile.columns, "px"), (tile.rows, "bottom"), (tile.columns, "right")))  # and the last ones
        left = Signal(signed(SIZE_BITS + 1))
        last_part, row_end, set_end = Signal(), Signal(), Signal()
        m.d.comb += [
            left.eq(plan.channels - at.channel),
            last_part.eq(part == c.rows // c.lanes - 1),
            row_end.eq(px == right),
            set_end.eq(row_end & (py == bottom)),
            o.payload.address.eq(address),
            o.payload.count.eq(Mux(left <= 0, 0, Mux(left > c.lanes, c.lanes, left))),
            o.payload.last.eq(left <= c.lanes),
            o.payload.end.eq(set_end & last_part & (block == 1) & tile.end),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    block.eq(tile.blocks),
                    part.eq(0),
                    right.eq(tile.columns - 1),
                    bottom.eq(tile.rows - 1),
                    at.eq(Mux(tile.first, 0, begin)),
                ]
                with m.If(self.tile.valid):
                    with m.If(tile.first):
                        m.d.sync += begin.eq(0)
                    m.next = "SQUARE"
            with m.State("SQUARE"):
                m.d.sync += base.eq(tile[self.surface] + at.offset)
                m.next = "CHANNEL"
            with m.State("CHANNEL"):
                m.d.sync += [
                    *(s.eq(base + (at.channel << step.wide)) for s in (row, address)),
                    px.eq(0),
                    py.eq(0),
                ]
                m.next = "PIXELS"
            with m.State("PIXELS"):
                m.d.comb += o.valid.eq(1)
                with m.If(o.ready):
                    m.d.sync += [
                        px.eq(px + 1),
                        address.eq(address + step.right),
                    ]
                    with m.If(row_end):
                        m.d.sync += [
                            px.eq(0),
                            py.eq(py + 1),
                            *(s.eq(row + step.down) for s in (row, address)),
                        ]
                    with m.If(set_end):
                        m.d.sync += [
                            part.eq(Mux(last_part, 0, part + 1)),
                            at.channel.eq(at.channel + c.lanes),
                        ]
                        with m.If(last_part):
                            m.next = "BLOCK"
                        with m.Else():
                            m.next = "SQUARE"
            with m.State("BLOCK"):
                m.d.sync += block.eq(block - 1)
                with m.If(left <= 0):  # on to the next pixel of the square
                    m.d.sync += [
                        at.channel.eq(0),
                        at.column.eq(at.column + 1),
                        at.offset.eq(at.offset + step.pixel),
                    ]
                    with m.If(at.column + 1 >= plan.shuffle):
                        m.d.sync += [
                            at.column.eq(0),
                            *(s.eq(at.line + step.row) for s in (at.line, at.offset)),
                        ]
                m.next = "SQUARE"
                with m.If(block == 1):
                    m.next = "END"
            with m.State("END"):
                m.d.comb += self.tile.ready.eq(1)
                with m.If(tile.group_end):
                    m.d.sync += begin.eq(at)
                m.next = "IDLE"
        return m
