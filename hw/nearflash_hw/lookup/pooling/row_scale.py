"""Product of two fp32 values rounded to a 24-bit significand: the per-row factors."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...primitives.float32 import fp32_fields

__all__ = ["RowScale"]


class RowScale(wiring.Component):
    """``RN24(a * b)`` of fp32 ``a`` and ``b``: +-``mant`` * 2**``exp`` with mant normalised to 24 bits (or 0), rounded to
    nearest even, exponent unbounded. Exact when either is 1.0.

    Without ``scaled``, ``a`` is 1.0: there is nothing to multiply or to round, and a subnormal ``b`` stays as it is.

    A free-running pipeline of :attr:`latency` cycles. Model: ``nearflash.reference.fp32.round24``.
    """

    def __init__(self, tag, scaled: bool = True):
        self.scaled = scaled
        self.latency = 8 if scaled else 1
        super().__init__({
            #: Operands.
            "valid": In(1),
            "a": In(32),
            "b": In(32),
            "tag": In(tag),
            #: Their product.
            "o_valid": Out(1),
            "neg": Out(1),
            "mant": Out(24),
            "exp": Out(signed(11)),
            #: An operand was NaN or infinite.
            "not_finite": Out(1),
            "o_tag": Out(tag),
        })

    def elaborate(self, platform):
        m = Module()

        def reg(shape, value, name, reset_less=True):
            r = Signal(shape, name=name, reset_less=reset_less)
            m.d.sync += r.eq(value)
            return r

        tag, valid = Value.cast(self.tag), self.valid
        for k in range(1, self.latency + 1):
            tag = reg(len(tag), tag, f"tag{k}")
            valid = reg(1, valid, f"valid{k}", reset_less=False)
        m.d.comb += [
            Value.cast(self.o_tag).eq(tag),
            self.o_valid.eq(valid),
        ]
        nb, mb, fb, xb = fp32_fields(self.b)
        if not self.scaled:
            m.d.comb += [
                self.neg.eq(reg(1, nb, "neg1")),
                self.mant.eq(reg(24, mb, "mant1")),
                self.exp.eq(reg(signed(11), fb - 150, "exp1")),
                self.not_finite.eq(reg(1, xb, "not_finite1")),
            ]
            return m
        na, ma, fa, xa = fp32_fields(self.a)
        # An infinite operand's mantissa is kept: the value is unused, only the flag counts.
        ra, rb = reg(24, ma, "a1"), reg(24, mb, "b1")
        exp = reg(signed(11), fa + fb - 300, "exp1")
        side = reg(2, Cat(na ^ nb, xa | xb), "side1")
        p = ra * rb
        for k in (2, 3):  # the DSP's product registers
            p, exp, side = reg(48, p, f"p{k}"), reg(signed(11), exp, f"exp{k}"), reg(2, side, f"side{k}")
        for k, steps in ((4, (32, 16)), (5, (8, 4)), (6, (2, 1))):
            count = Const(0)
            for step in steps:
                clear = ~p[48 - step :].any()
                p = Mux(clear, Cat(Const(0, step), p)[:48], p)
                count = count + Mux(clear, step, 0)
            p, exp, side = reg(48, p, f"p{k}"), reg(signed(11), exp - count, f"exp{k}"), reg(2, side, f"side{k}")
        mant = reg(24, p[24:], "mant7")
        up = reg(1, p[23] & (p[:23].any() | p[24]), "up7")
        exp, side = reg(signed(11), exp + 24, "exp7"), reg(2, side, "side7")
        total = (mant + up)[:25]
        carry = total[24]
        m.d.comb += [
            self.mant.eq(reg(24, Mux(carry, 1 << 23, total[:24]), "mant8")),
            self.exp.eq(reg(signed(11), exp + carry, "exp8")),
        ]
        side = reg(2, side, "side8")
        m.d.comb += [
            self.neg.eq(side[0]),
            self.not_finite.eq(side[1]),
        ]
        return m
