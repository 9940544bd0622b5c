"""The tiles of a convolution, in the order in which they are computed."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from .plan import SIZE_BITS, conv_layout, tile_layout

__all__ = ["TileWalk"]


class TileWalk(wiring.Component):
    """``start``: walks the output of ``plan``, weight group by weight group (outermost), row of tiles by row of tiles.

    Takes ``start`` only while not ``busy``; ``plan`` is steady until then. A tile takes five cycles (docs/offload.md, "Loop
    order and bounds").
    """

    def __init__(self, config: TensorConfig):
        self.config = config
        super().__init__({
            "plan": In(conv_layout()),
            "start": In(1),
            "busy": Out(1),
            "o": Out(stream.Signature(tile_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()
        plan, o = self.plan, self.o.payload
        oy, ox, left = (Signal(SIZE_BITS, name=n) for n in ("oy", "ox", "left"))  # ``left``: blocks from this group on
        lines = {name: Signal.like(o[name], name=f"line_{name}") for name in "xyr"}
        down_left, right_left = Signal(signed(SIZE_BITS + 1)), Signal(signed(SIZE_BITS + 1))
        last_row, last_column, last_group = Signal(), Signal(), Signal()
        m.d.comb += [
            down_left.eq(plan.out_height - oy),
            right_left.eq(plan.out_width - ox),
            last_row.eq(down_left <= plan.tile_rows),
            last_column.eq(right_left <= plan.tile_columns),
            last_group.eq(left <= plan.group),
            o.group_end.eq(last_row & last_column),
            o.end.eq(o.group_end & last_group),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    left.eq(plan.blocks),
                    o.first.eq(1),
                ]
                with m.If(self.start):
                    m.d.sync += self.busy.eq(1)
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.sync += [
                    o.blocks.eq(Mux(last_group, left, plan.group)),
                    o.group_begin.eq(1),
                    oy.eq(0),
                    o.iy.eq(-plan.pad_top),
                    *(lines[name].eq(plan[name].at) for name in lines),
                ]
                m.next = "ROW"
            with m.State("ROW"):
                m.d.sync += [
                    o.rows.eq(Mux(last_row, down_left, plan.tile_rows)),
                    ox.eq(0),
                    o.ix.eq(-plan.pad_left),
                    *(o[name].eq(lines[name]) for name in lines),
                ]
                m.next = "COLUMN"
            with m.State("COLUMN"):
                m.d.sync += [
                    o.columns.eq(Mux(last_column, right_left, plan.tile_columns)),
                    o.in_rows.eq((o.rows - 1) * plan.stride + plan.kernel_h),
                ]
                m.next = "REACH"
            with m.State("REACH"):
                m.d.sync += o.in_columns.eq((o.columns - 1) * plan.stride + plan.kernel_w)
                m.next = "LINE"
            with m.State("LINE"):
                m.d.sync += o.line.eq(o.in_columns * plan.words)
                m.next = "STEPS"
            with m.State("STEPS"):
                m.d.sync += [
                    o.down.eq(o.line * plan.stride),
                    o.skip.eq(o.line - plan.kernel_words + 1),
                ]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [
                        o.first.eq(0),
                        o.group_begin.eq(0),
                    ]
                    with m.If(~last_column):
                        m.d.sync += [
                            ox.eq(ox + plan.tile_columns),
                            o.ix.eq(o.ix + plan.tile_ix),
                            *(o[name].eq(o[name] + plan[name].tile_right) for name in lines),
                        ]
                        m.next = "COLUMN"
                    with m.Elif(~last_row):
                        m.d.sync += [
                            oy.eq(oy + plan.tile_rows),
                            o.iy.eq(o.iy + plan.tile_iy),
                            *(lines[name].eq(lines[name] + plan[name].tile_down) for name in lines),
                        ]
                        m.next = "ROW"
                    with m.Elif(~last_group):
                        m.d.sync += left.eq(left - plan.group)
                        m.next = "GROUP"
                    with m.Else():
                        m.d.sync += self.busy.eq(0)
                        m.next = "IDLE"
        return m
