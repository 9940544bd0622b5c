"""One element per cycle from its stored form to window units."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import RowFormat

from ...interfaces import bits_for
from ...primitives.float32 import STEP, Placed, fp32_fields, place_coarse, place_fine
from .shapes import Shapes

__all__ = ["Lane"]


class Lane(wiring.Component):
    """``RNE(element * factor)`` in window units, plus the row's rounded bias for INT8.

    A free-running pipeline. In cycle 0: ``raw`` (fp32, fp16 or uint8 bits at the bottom), ``format``, ``bias`` (of INT8:
    the element is the integer 1) and ``factor``. In cycle :attr:`LATE`: ``keep_bias`` (remember this contribution as the
    row's bias), ``add_bias``, and ``high_mask``, ones from the first bit that a contribution must not reach. In cycle
    :attr:`LATENCY`: ``value`` and the element's flags.
    """

    LATE = 6
    LATENCY = 7

    def __init__(self, config: DeviceConfig):
        self.s = s = Shapes(config)
        self.width = max(s.acc_bits, 48)
        super().__init__({
            #: The element, in cycle 0.
            "raw": In(32),
            "format": In(2),
            #: Of INT8: no element, the row's bias alone.
            "bias": In(1),
            "factor": In(s.operand),
            #: In cycle :attr:`LATE`: this contribution is the row's bias.
            "keep_bias": In(1),
            #: In cycle :attr:`LATE`.
            "add_bias": In(1),
            #: In cycle :attr:`LATE`: the bits that a contribution must not reach.
            "high_mask": In(self.width),
            #: In cycle :attr:`LATENCY`, as the flags.
            "value": Out(signed(s.acc_bits)),
            "not_finite": Out(1),
            "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s, width = self.s, self.width

        def reg(shape, value, name):
            r = Signal(shape, name=name, reset_less=True)
            m.d.sync += r.eq(value)
            return r

        # 1: the element as +-mant * 2**(exp - unit). Shifted up by the exponents' sum with ``unit``, the product's bit
        # ``size`` is worth one half: the window begins with the bit below the point.
        size = 48
        unit = size + 1
        neg, special, mant, exp = Signal(), Signal(), Signal(24), Signal(signed(9))
        with m.If(s.is_format(self.format, RowFormat.FP32)):
            n, ma, field, special32 = fp32_fields(self.raw)
            m.d.comb += [
                neg.eq(n),
                mant.eq(ma),
                exp.eq(field + (unit - 150)),
                special.eq(special32),
            ]
        with m.If(s.is_format(self.format, RowFormat.FP16)):
            field = self.raw[10:15]
            m.d.comb += [
                neg.eq(self.raw[15]),
                mant.eq(Cat(self.raw[:10], field.any())),
                exp.eq(Mux(field.any(), field, 1) + (unit - 25)),
                special.eq(field.all()),
            ]
        with m.If(s.is_format(self.format, RowFormat.INT8)):
            m.d.comb += [
                mant.eq(Mux(self.bias, 1, self.raw[:8])),
                exp.eq(unit),
            ]
        a, b = reg(24, mant, "a1"), reg(24, self.factor.mant, "b1")
        shift = reg(signed(s.exp_bits), exp + self.factor.exp, "shift1")
        neg, special = reg(1, neg ^ self.factor.neg, "neg1"), reg(1, special, "special1")
        # 2, 3: product, and meanwhile the shift as place_coarse() takes it.
        most = size + width + 1
        p = reg(size, a * b, "p2")
        shift = reg(bits_for(most), Mux(shift < 0, 0, Mux(shift > most, most, shift)), "shift2")
        neg, special = reg(1, neg, "neg2"), reg(1, special, "special2")
        p, steps, fine = reg(size, p, "p3"), reg(most // STEP + 1, 1 << shift[4:], "steps3"), reg(4, shift, "fine3")
        neg, special = reg(1, neg, "neg3"), reg(1, special, "special3")
        # 4, 5: shift and round.
        placed = place_coarse(p, steps, width + 1)
        placed = Placed(reg(len(placed.bits), placed.bits, "placed4"), reg(1, placed.below, "below4"),
                        reg(1, placed.above, "above4"))
        fine, neg, special = reg(4, fine, "fine4"), reg(1, neg, "neg4"), reg(1, special, "special4")
        window, below, above = place_fine(placed, fine, width + 1)
        mag, lost = reg(width, window[1:], "mag5"), reg(1, above, "lost5")
        up = reg(1, window[0] & (below | window[1]), "up5")
        neg, special = reg(1, neg, "neg5"), reg(1, special, "special5")
        # 6: add the rounding.
        c, lost = reg(width, mag + up, "c6"), reg(1, lost, "lost6")
        neg, special = reg(1, neg, "neg6"), reg(1, special, "special6")
        # 7: sign, bias.
        row_bias = Signal(signed(s.acc_bits), reset_less=True)
        flipped = c[: s.acc_bits] ^ neg.replicate(s.acc_bits)
        total = (flipped + Mux(self.add_bias, row_bias.as_unsigned(), Const(0, s.acc_bits)) + neg)[: s.acc_bits]
        with m.If(self.keep_bias):
            m.d.sync += row_bias.eq(total.as_signed())
        m.d.comb += [
            self.value.eq(reg(signed(s.acc_bits), total.as_signed(), "value7")),
            self.not_finite.eq(reg(1, special, "special7")),
            self.overflow.eq(reg(1, lost | (c & self.high_mask).any(), "overflow7")),
        ]
        return m
