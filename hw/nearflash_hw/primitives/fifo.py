"""A stream FIFO."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for

__all__ = ["StreamFifo"]


class StreamFifo(wiring.Component):
    """FIFO of ``depth`` payloads of ``shape``; ``level`` counts what it holds. Block RAM from 64 entries up
    (``SyncFIFOBuffered``, latency 2), distributed RAM below (latency 1)."""

    def __init__(self, shape, depth: int):
        if depth < 1:
            raise ValueError(f"depth = {depth}: must be at least 1")
        self.depth = depth
        self._shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            "level": Out(bits_for(depth + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        width = len(self.i.payload.as_value() if hasattr(self.i.payload, "as_value") else self.i.payload)
        kind = SyncFIFOBuffered if self.depth >= 64 else SyncFIFO
        m.submodules.fifo = fifo = kind(width=width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload), fifo.w_en.eq(self.i.valid), self.i.ready.eq(fifo.w_rdy),
            self.o.valid.eq(fifo.r_rdy), fifo.r_en.eq(self.o.ready), self.level.eq(fifo.level),
        ]
        out = self.o.payload.as_value() if hasattr(self.o.payload, "as_value") else self.o.payload
        m.d.comb += out.eq(fifo.r_data)
        return m
