"""A convolution from DRAM to DRAM."""

from __future__ import annotations

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from nearflash.contract.tensor import TensorConfig

from .entries import EntryStream
from .places import Places
from .plan import conv_layout, every_ready, tile_layout, unit_queue
from .residual import ResidualReader
from .tiles import TileWalk
from .unit import array_ports, epilogue_ports, input_ports, unit_ports
from .weights import WeightStream
from .window import Window
from .writer import CodeWriter

__all__ = ["Convolution"]



class Convolution(wiring.Component):
    """``start``: does what ``plan`` says; ``done``: its output lies in memory, or a read or write failed on the way.

    Takes ``start`` only when idle, with ``plan`` steady from three cycles before it until ``done``. ``mem_read``: 0 weights,
    1 entries, 2 residual. The units run through the same tiles, each as far ahead as its buffers let it. ``x_tile`` ...: an
    :class:`~nearflash_hw.tensor.input_buffer.InputTiles` of ``plan``; ``step``, ``weight``, ``array_sums``: a
    :class:`~nearflash_hw.tensor.array.PixelArray`; ``sums``, ``entry``, ``residual``, ``codes``: an
    :class:`~nearflash_hw.tensor.epilogue.Epilogue`. An engine has one of each.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "plan": In(conv_layout()),
            **unit_ports(beat_bytes, 3),
            **input_ports(config),
            **array_ports(config, beat_bytes),
            **epilogue_ports(config.lanes, residual=True),
        })

    def elaborate(self, platform):
        m = Module()
        c, plan, beat = self.config, self.plan, self.beat_bytes
        m.submodules.walk = walk = TileWalk(c)
        m.submodules.weights = weights = WeightStream(c, beat)
        m.submodules.window = window = Window(c)
        m.submodules.entries = entries = EntryStream(c, beat)
        m.submodules.residual_places = residual_places = Places(c, "r")
        m.submodules.residuals = residuals = ResidualReader(c.lanes, beat)
        m.submodules.places = places = Places(c, "y")
        m.submodules.writer = writer = CodeWriter(c.lanes, beat)

        # -- tiles to everyone; a descriptor without residual leaves their reader out
        users = [weights, window, entries, places, residual_places]
        m.d.comb += [user.plan.eq(plan) for user in users]
        queues = []
        for k, tile in enumerate([flipped(self.x_tile), *(user.tile for user in users)]):
            m.submodules[f"tiles{k}"] = queue = unit_queue(tile_layout(c))
            connect(m, queue.o, tile)
            queues.append(queue.i)
        every_ready(m, walk.o, queues)
        with m.If(~plan.epilogue.residual):
            m.d.comb += queues[-1].valid.eq(0)
        m.d.comb += [
            walk.plan.eq(plan),
            walk.start.eq(self.start),
            entries.start.eq(self.start),
        ]

        # -- input and weights to the array, its sums to the epilogue, codes from there to memory
        m.d.comb += [
            window.available.eq(self.x_available),
            self.x_read.eq(window.read),
            window.data.eq(self.x_data),
            self.x_release.eq(window.release),
            residuals.wide.eq(plan.r.wide),
            writer.wide.eq(plan.y.wide),
        ]
        connect(m, window.o, flipped(self.step))
        connect(m, weights.o, flipped(self.weight))
        connect(m, flipped(self.array_sums), flipped(self.sums))
        connect(m, entries.o, flipped(self.entry))
        connect(m, residual_places.o, residuals.place)
        connect(m, residuals.o, flipped(self.residual))
        connect(m, places.o, writer.place)
        connect(m, flipped(self.codes), writer.codes)
        for k, user in enumerate((weights, entries, residuals)):
            connect(m, user.mem_read, flipped(self.mem_read[k]))
        connect(m, writer.mem_write, flipped(self.mem_write))
        m.d.comb += writer.failed.eq(Cat(self.x_error, *(u.error for u in (weights, entries, residuals))).any())
        connect(m, writer.done, flipped(self.done))
        return m
