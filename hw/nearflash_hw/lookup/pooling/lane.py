"""One element per cycle from its stored form to window units."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import RowFormat

from ...primitives.float32 import fp32_fields, funnel
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
            "raw": In(32), "format": In(2), "bias": In(1), "factor": In(s.operand),
            "keep_bias": In(1), "add_bias": In(1), "high_mask": In(self.width),
            "value": Out(signed(s.acc_bits)), "not_finite": Out(1), "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s, width = self.s, self.width

        def reg(shape, value, name):
            r = Signal(shape, name=name, reset_less=True)
            m.d.sync += r.eq(value)
            return r

        # 1: the element as +-mant * 2**exp.
        neg, special, mant, exp = Signal(), Signal(), Signal(24), Signal(signed(9))
        with m.If(s.is_format(self.format, RowFormat.FP32)):
            n, ma, field, special32 = fp32_fields(self.raw)
            m.d.comb += [neg.eq(n), mant.eq(ma), exp.eq(field - 150), special.eq(special32)]
        with m.If(s.is_format(self.format, RowFormat.FP16)):
            field = self.raw[10:15]
            m.d.comb += [neg.eq(self.raw[15]), mant.eq(Cat(self.raw[:10], field.any())),
                         exp.eq(Mux(field.any(), field, 1) - 25), special.eq(field.all())]
        with m.If(s.is_format(self.format, RowFormat.INT8)):
            m.d.comb += mant.eq(Mux(self.bias, 1, self.raw[:8]))
        a, b = reg(24, mant, "a1"), reg(24, self.factor.mant, "b1")
        shift = reg(signed(s.exp_bits), exp + self.factor.exp, "shift1")
        neg, special = reg(1, neg ^ self.factor.neg, "neg1"), reg(1, special, "special1")
        # 2, 3: product, and meanwhile the shift as funnel() takes it.
        p = reg(48, a * b, "p2")
        bits = width.bit_length()
        right = reg(1, shift < 0, "right2")
        tiny = reg(1, shift < -width, "tiny2")  # below one half whatever the product
        left = reg(bits, Mux(shift < 0, Mux(shift < -width, 0, shift + width), Mux(shift > width, width, shift)), "left2")
        neg, special = reg(1, neg, "neg2"), reg(1, special, "special2")
        p, right, tiny, left = reg(48, p, "p3"), reg(1, right, "right3"), reg(1, tiny, "tiny3"), reg(bits, left, "left3")
        neg, special = reg(1, neg, "neg3"), reg(1, special, "special3")
        # 4: shift.
        high, low = funnel(p, left, width)
        high, low = reg(48, Mux(tiny, 0, high), "high4"), reg(width, Mux(tiny, 0, low), "low4")
        right, neg, special = reg(1, right, "right4"), reg(1, neg, "neg4"), reg(1, special, "special4")
        # 5, 6: round.
        mag = reg(width, Mux(right, high, low), "mag5")
        up = reg(1, right & low[-1] & (low[:-1].any() | high[0]), "up5")
        lost = reg(1, ~right & high.any(), "lost5")
        neg, special = reg(1, neg, "neg5"), reg(1, special, "special5")
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
