"""The gateware of :func:`nearflash.reference.requantize.requantize`."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.reference.requantize import ACC_BITS, MULT_BITS

__all__ = ["SHIFT_BITS", "Requantizer"]

SHIFT_BITS = 6
LOW_BITS = 23  # the multiplication is split so that each half fits one DSP (25 x 18 on 7-series)


class Requantizer(wiring.Component):
    """``q = clamp((acc * mult + half) >> shift)`` on ``lanes`` lanes, :attr:`LATENCY` cycles, never stalls.

    ``tag`` (``tag_bits`` bits) comes out with its ``q``. Rounding half up needs no constant of its own:
    ``(v + 2**(s-1)) >> s = (v >> s) + bit s-1 of v``.
    """

    LATENCY = 6

    def __init__(self, lanes: int, bits: int, relu: bool, tag_bits: int):
        self.lanes, self.bits, self.relu = lanes, bits, relu
        super().__init__({
            "valid": In(1),
            "acc": In(data.ArrayLayout(signed(ACC_BITS), lanes)),
            "mult": In(data.ArrayLayout(MULT_BITS, lanes)),
            "shift": In(data.ArrayLayout(SHIFT_BITS, lanes)),
            "tag": In(tag_bits),
            "o_valid": Out(1),
            "q": Out(data.ArrayLayout(signed(bits), lanes)),
            "o_tag": Out(tag_bits),
        })

    def elaborate(self, platform):
        m = Module()
        valid = [self.valid, *(Signal(name=f"valid{s}") for s in range(1, self.LATENCY + 1))]
        tag = [self.tag, *(Signal(self.tag.shape(), name=f"tag{s}", reset_less=True)
                           for s in range(1, self.LATENCY + 1))]
        for s in range(self.LATENCY):
            m.d.sync += valid[s + 1].eq(valid[s])
            with m.If(valid[s]):
                m.d.sync += tag[s + 1].eq(tag[s])
        m.d.comb += [self.o_valid.eq(valid[-1]), self.o_tag.eq(tag[-1])]
        for k in range(self.lanes):
            m.d.comb += self.q[k].eq(self._lane(m, k, valid))
        return m

    def _lane(self, m: Module, k: int, valid: list) -> Signal:
        def reg(shape, name):
            return Signal(shape, name=f"{name}{k}", reset_less=True)

        bits = self.bits
        low = reg(LOW_BITS + MULT_BITS, "low")
        high = reg(signed(ACC_BITS - LOW_BITS + MULT_BITS), "high")
        shift1, shift2, shift3 = reg(SHIFT_BITS, "shift1_"), reg(SHIFT_BITS, "shift2_"), reg(3, "shift3_")
        with m.If(valid[0]):
            m.d.sync += [low.eq(self.acc[k][:LOW_BITS] * self.mult[k]),
                         high.eq(self.acc[k][LOW_BITS:].as_signed() * self.mult[k]), shift1.eq(self.shift[k])]
        product = reg(signed(ACC_BITS + MULT_BITS), "product")
        with m.If(valid[1]):
            m.d.sync += [product.eq((high << LOW_BITS) + low), shift2.eq(shift1)]
        wide = signed(ACC_BITS + MULT_BITS + 1)  # one bit below the point
        coarse, fine = reg(wide, "coarse"), reg(wide, "fine")
        with m.If(valid[2]):
            m.d.sync += [coarse.eq((product << 1) >> (shift2[3:] << 3)), shift3.eq(shift2[:3])]
        with m.If(valid[3]):
            m.d.sync += fine.eq(coarse >> shift3)
        # Limited to bits + 1 bits first, which no rounding brings back into range, so the rounding adder is short.
        whole, rounding = reg(signed(bits + 1), "whole"), reg(1, "rounding")
        above = fine[1 + bits:]  # equal to the sign throughout when it fits
        fits = (above == 0) | above.all()
        with m.If(valid[4]):
            m.d.sync += [whole.eq(Mux(fits, fine[1:bits + 2].as_signed(),
                                      Mux(fine[-1], Const(-(1 << bits), signed(bits + 1)),
                                          Const((1 << bits) - 1, signed(bits + 1))))),
                         rounding.eq(fine[0])]
        rounded = Signal(signed(bits + 2), name=f"rounded{k}")
        m.d.comb += rounded.eq(whole + rounding)
        hi = (1 << bits - 1) - 1
        lo = 0 if self.relu else -hi
        q = reg(signed(bits), "q")
        with m.If(valid[5]):
            with m.If(rounded > hi):
                m.d.sync += q.eq(hi)
            with m.Elif(rounded < lo):
                m.d.sync += q.eq(lo)
            with m.Else():
                m.d.sync += q.eq(rounded)
        return q
