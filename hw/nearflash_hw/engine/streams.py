"""What the blocks of the MLP engine exchange: beats of activations or accumulators, and a FIFO that grants credits."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits
from ..primitives.fifo import StreamFifo

__all__ = ["CreditFifo", "beat_layout", "clog2", "low_bit"]


def clog2(v: int) -> int:
    """Smallest b with 2**b >= v."""
    return (v - 1).bit_length()


def low_bit(v: int) -> int:
    """Largest power of two that divides ``v`` (``v`` above 0)."""
    return v & -v


def beat_layout(lanes: int, bits: int, width: int, nb_bits: int) -> data.StructLayout:
    """``lanes`` signed elements of ``bits`` bits, elements ``pos``..``pos + lanes - 1`` of a vector of ``width`` (a
    multiple of ``lanes``; elements from ``width`` on are padding) of sample ``n`` of a group of ``nb + 1``.

    Every producer sends a group's beats so that, for each element, the last sample's (n = nb) comes after the other
    samples', and a sample's elements come in order: the progress of sample ``nb`` is the progress of the group.
    """
    return data.StructLayout({"data": data.ArrayLayout(signed(bits), lanes), "pos": index_bits(width), "n": nb_bits,
                              "nb": nb_bits})


class CreditFifo(wiring.Component):
    """The end of a pipeline that cannot stall: an input may enter the pipeline (``spend``) only while ``credit``, and so
    finds a free place when it comes out (``push``). ``idle``: nothing in the pipeline or the FIFO. Latency 1."""

    def __init__(self, shape, depth: int = 16):
        self.depth = depth
        self._shape = shape
        super().__init__({"spend": In(1), "credit": Out(1, init=1), "push": In(1), "payload": In(shape),
                          "o": Out(stream.Signature(shape)), "idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = StreamFifo(self._shape, self.depth)
        credits = Signal(bits_for(self.depth), init=self.depth)
        popped = Signal()
        m.d.comb += [
            fifo.i.payload.eq(self.payload), fifo.i.valid.eq(self.push),
            self.o.payload.eq(fifo.o.payload), self.o.valid.eq(fifo.o.valid), fifo.o.ready.eq(self.o.ready),
            popped.eq(self.o.valid & self.o.ready),
            self.idle.eq(credits == self.depth),
        ]
        # ``credit`` is ``credits != 0`` in a register: much of the pipeline's first stage waits for it.
        with m.If(self.spend & ~popped):
            m.d.sync += [credits.eq(credits - 1), self.credit.eq(credits != 1)]
        with m.Elif(popped & ~self.spend):
            m.d.sync += [credits.eq(credits + 1), self.credit.eq(1)]
        return m
