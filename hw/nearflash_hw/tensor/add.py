"""ADD: two tensors, rescaled, summed and rounded once; or one, converted."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from nearflash.contract.tensor import TensorConfig

from .bursts import BurstReader, BurstWriter, TensorRows
from .groups import GroupPacker, GroupSplitter, pixel_beats
from .one_entry import OneEntry
from .planner import descriptor_layout
from .unit import epilogue_ports, unit_ports

__all__ = ["Addition"]


class Addition(wiring.Component):
    """``start``: does what a checked ADD ``descriptor`` says; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``descriptor`` steady from three cycles before it until ``done``. ``mem_read``: 0 x,
    1 the residual. ``sums``, ``entry``, ``residual``, ``codes``: an :class:`~nearflash_hw.tensor.epilogue.Epilogue` of
    ``config.lanes``, whose control and table are the descriptor's.

    ``lanes`` channels of a pixel a cycle, as fast as beats come and go: the bound is max(groups of lanes, beats read, beats
    written), and a descriptor takes both memories' latencies and the epilogue's beside it.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "descriptor": In(descriptor_layout()),
            **unit_ports(beat_bytes, 2),
            **epilogue_ports(config.lanes, residual=True),
        })

    def elaborate(self, platform):
        m = Module()
        d, lanes, beat = self.descriptor, self.config.lanes, self.beat_bytes
        errors = []
        splitters = []
        for k, (at, wide, wanted) in enumerate(((d.x, d.x16, 1), (d.r, d.r16, d.residual))):
            m.submodules[f"rows{k}"] = rows = TensorRows(beat)
            m.submodules[f"reader{k}"] = reader = BurstReader(beat)
            m.submodules[f"splitter{k}"] = splitter = GroupSplitter(lanes, beat)
            m.d.comb += [
                rows.start.eq(self.start & wanted),
                rows.at.eq(at),
                rows.height.eq(d.in_height),
                rows.width.eq(d.in_width),
                rows.pixel.eq(pixel_beats(d.in_channels, wide, beat)),
                splitter.channels.eq(d.in_channels),
                splitter.wide.eq(wide),
            ]
            connect(m, rows.o, reader.run)
            connect(m, reader.o, splitter.i)
            connect(m, reader.mem_read, flipped(self.mem_read[k]))
            errors.append(reader.error)
            splitters.append(splitter)
        m.submodules.entries = entries = OneEntry(lanes)
        m.submodules.packer = packer = GroupPacker(lanes, beat)
        m.submodules.writer = writer = BurstWriter(beat)
        first = Signal()
        x = splitters[0].o
        m.d.comb += [
            *(a.eq(b) for a, b in zip(self.sums.payload.data, x.payload, strict=True)),
            self.sums.payload.first.eq(first),
            self.sums.valid.eq(x.valid),
            x.ready.eq(self.sums.ready),
            entries.start.eq(self.start),
            entries.mult.eq(d.mult),
            entries.shift.eq(d.shift),
            packer.channels.eq(d.in_channels),
            packer.wide.eq(d.y16),
            packer.height.eq(d.in_height),
            packer.width.eq(d.in_width),
            writer.start.eq(self.start),
            writer.address.eq(d.y),
            writer.failed.eq(Cat(errors).any()),
        ]
        with m.If(self.start):
            m.d.sync += first.eq(1)
        with m.Elif(self.sums.valid & self.sums.ready):
            m.d.sync += first.eq(0)
        connect(m, splitters[1].o, flipped(self.residual))
        connect(m, entries.o, flipped(self.entry))
        connect(m, flipped(self.codes), packer.i)
        connect(m, packer.o, writer.i)
        connect(m, writer.mem_write, flipped(self.mem_write))
        connect(m, writer.done, flipped(self.done))
        return m
