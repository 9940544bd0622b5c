"""IEEE 754 single precision, as far as the device needs it: to integers in, from integers out, each one rounding.

Bit-exact models: :mod:`nearflash.reference.fp32`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["FP32_NAN", "FP32_ONE", "Fp32Quantizer", "IntToFp32", "fp32_fields", "funnel", "shift_left"]

FP32_ONE = 0x3F80_0000
FP32_NAN = 0x7FC0_0000
BIAS = 150  # value = mantissa (24-bit integer) * 2**(exponent field - 150)


def fp32_fields(bits: Value) -> tuple[Value, Value, Value, Value]:
    """(negative, 24-bit integer mantissa, exponent field with subnormals at 1, not finite) of fp32 ``bits``.

    The magnitude is mantissa * 2**(field - 150).
    """
    field = bits[23:31]
    normal = field.any()
    return bits[31], Cat(bits[:23], normal), Mux(normal, field, 1), field.all()


def shift_left(value: Value, amount: Value, width: int) -> Value:
    """``(value << amount) mod 2**width`` as a barrel of constant shifts, never wider than ``width``."""
    out = value[:width]
    for k in range(len(amount)):
        step = min(1 << k, width)
        out = Mux(amount[k], Cat(Const(0, step), out)[:width], out)
    return out[:width]


def funnel(value: Value, left: Value, width: int) -> tuple[Value, Value]:
    """(high, low) halves of ``value << left`` seen through a ``width``-bit low half; ``0 <= left <= width``,
    ``len(value) <= width``.

    With ``left = s`` for a left shift s >= 0, low is the result and high what fell out at the top. With
    ``left = width + s`` for s < 0, high is the truncated result and low the fraction, its top bit worth one half.
    """
    return (value >> (width - left)[: len(left)])[: len(value)], shift_left(value, left, width)


class Fp32Quantizer(wiring.Component):
    """fp32 to a symmetric integer: ``q = clamp(RNE(value * mult * 2**-shift), +-(2**(out_bits - 1) - 1))``.

    ``i``: stream of {value: fp32 bits, mult: unsigned 16, shift: signed 8, tag}; ``o``: stream of {q: signed out_bits,
    tag}. The exact product is rounded once, to nearest even. NaN gives 0; an infinity clamps (0 when ``mult`` is 0).
    One element per cycle, latency :attr:`LATENCY`. Model: ``nearflash.reference.fp32.quantize_fp32``.
    """

    LATENCY = 7

    def __init__(self, out_bits: int, tag=0):
        if not 2 <= out_bits <= 24:
            raise ValueError(f"out_bits = {out_bits}: must be from 2 to 24")
        self.out_bits, self.tag = out_bits, tag
        super().__init__({
            "i": In(stream.Signature(data.StructLayout(
                {"value": 32, "mult": 16, "shift": signed(8), "tag": tag}))),
            "o": Out(stream.Signature(data.StructLayout({"q": signed(out_bits), "tag": tag}))),
        })

    def elaborate(self, platform):
        m = Module()
        width = 40  # of the product, 24 x 16
        limit = (1 << (self.out_bits - 1)) - 1
        pipe = _Pipe(m, self.i, self.o, self.LATENCY, self.tag)
        go = pipe.go

        def reg(shape, value, name):
            r = Signal(shape, name=name, reset_less=True)
            with m.If(go):
                m.d.sync += r.eq(value)
            return r

        p = self.i.p
        neg, mant, field, special = fp32_fields(p.value)
        nan = special & p.value[:23].any()
        a, b = reg(24, mant, "a"), reg(16, p.mult, "b")
        s1 = reg(signed(10), field - BIAS - p.shift, "s1")
        neg1, nan1 = reg(1, neg, "neg1"), reg(1, nan, "nan1")
        inf1 = reg(1, special & ~nan, "inf1")
        # Two product registers for the DSP's M and P; the shift amount meanwhile. left as funnel() wants it.
        product2 = reg(width, a * b, "product2")
        right2 = reg(1, s1 < 0, "right2")
        tiny2 = reg(1, s1 < -width, "tiny2")  # even the whole product is below one half
        left2 = reg(6, Mux(s1 < 0, Mux(s1 < -width, 0, s1 + width), Mux(s1 > width, width, s1)), "left2")
        neg2, nan2, inf2 = reg(1, neg1, "neg2"), reg(1, nan1, "nan2"), reg(1, inf1, "inf2")
        product3 = reg(width, product2, "product3")
        right3, left3 = reg(1, right2, "right3"), reg(6, left2, "left3")
        neg3, zero3 = reg(1, neg2, "neg3"), reg(1, nan2 | tiny2, "zero3")
        inf3 = reg(1, inf2, "inf3")
        high, low = funnel(product3, left3, width)
        high4, low4 = reg(width, high, "high4"), reg(width, low, "low4")
        right4, neg4, zero4 = reg(1, right3, "right4"), reg(1, neg3, "neg4"), reg(1, zero3, "zero4")
        inf4 = reg(1, inf3 & product3.any(), "inf4")
        whole = Mux(right4, high4, low4)
        # One bit above the limit is kept, so that rounding up to the limit + 1 still clamps.
        mag5 = reg(self.out_bits, whole[: self.out_bits - 1], "mag5")
        up5 = reg(1, right4 & low4[-1] & (low4[:-1].any() | high4[0]), "up5")
        over5 = reg(1, inf4 | whole[self.out_bits - 1 :].any() | (~right4 & high4.any()), "over5")
        neg5, zero5 = reg(1, neg4, "neg5"), reg(1, zero4, "zero5")
        rounded6 = reg(self.out_bits, mag5 + up5, "rounded6")
        over6, neg6, zero6 = reg(1, over5, "over6"), reg(1, neg5, "neg6"), reg(1, zero5, "zero6")
        clamped = Mux(zero6, 0, Mux(over6 | (rounded6 > limit), limit, rounded6))[: self.out_bits]
        q = reg(signed(self.out_bits), Mux(neg6, -clamped, clamped), "q7")
        m.d.comb += self.o.p.q.eq(q)
        return m


class IntToFp32(wiring.Component):
    """Signed integer times a power of two to fp32: ``i * 2**e``, rounded once to nearest even.

    ``i``: stream of {i: signed in_bits, e: signed exp_bits, tag}; ``o``: stream of {value: fp32 bits, tag}. Subnormal
    results included; overflow gives infinity, 0 gives +0.0, a negative value that rounds to 0 gives -0.0.
    One element per cycle, latency :attr:`LATENCY`. Model: ``nearflash.reference.fp32.int_to_fp32``.
    """

    LATENCY = 7

    def __init__(self, in_bits: int, tag=0, exp_bits: int = 8):
        if not 2 <= in_bits <= 80:
            raise ValueError(f"in_bits = {in_bits}: must be from 2 to 80")
        self.in_bits, self.exp_bits, self.tag = in_bits, exp_bits, tag
        super().__init__({
            "i": In(stream.Signature(data.StructLayout(
                {"i": signed(in_bits), "e": signed(exp_bits), "tag": tag}))),
            "o": Out(stream.Signature(data.StructLayout({"value": 32, "tag": tag}))),
        })

    def elaborate(self, platform):
        m = Module()
        n = max(self.in_bits, 26)  # magnitude, padded so that mantissa and guard bit exist
        pipe = _Pipe(m, self.i, self.o, self.LATENCY, self.tag)
        go = pipe.go

        def reg(shape, value, name):
            r = Signal(shape, name=name, reset_less=True)
            with m.If(go):
                m.d.sync += r.eq(value)
            return r

        i = self.i.p.i
        # Exponent field of a value whose top magnitude bit (n - 1) is set: e + n - 1 + 127.
        ebits = signed(max(self.exp_bits, 8) + 3)
        mag = reg(n, Mux(i < 0, -i, i)[: self.in_bits], "mag1")
        neg, exp = reg(1, i < 0, "neg1"), reg(ebits, self.i.p.e + (n + 126), "exp1")
        # Normalise over three stages, coarse steps first.
        steps = [1 << k for k in reversed(range((n - 1).bit_length()))]
        per = len(steps) // 3
        for stage in range(3):
            of = steps[stage * per : None if stage == 2 else (stage + 1) * per]  # the last ones look at fewer bits
            unit, most = of[-1], (1 << len(of)) - 1
            # Leading zeros in units, up to ``most``: all units are looked at side by side.
            zeros = Const(most)
            for k in reversed(range(min(most, -(-n // unit)))):
                zeros = Mux(mag[max(0, n - (k + 1) * unit) : n - k * unit].any(), k, zeros)
            for k in range(len(of)):
                mag = Mux(zeros[k], Cat(Const(0, unit << k), mag)[:n], mag)
            count = Cat(Const(0, (unit - 1).bit_length()), zeros)
            mag, neg, exp = (reg(n, mag, f"mag{stage + 2}"), reg(1, neg, f"neg{stage + 2}"),
                             reg(ebits, exp - count, f"exp{stage + 2}"))
        # Below the normal range, the mantissa goes down to exponent field 1; 26 places leave only the sticky bit.
        down = Mux(exp >= 1, 0, Mux(exp < -25, 26, 1 - exp))[:5]
        top5 = reg(25, mag[n - 25 :], "top5")  # 24 bits and the guard
        sticky5, down5 = reg(1, mag[: n - 25].any(), "sticky5"), reg(5, down, "down5")
        field5 = reg(8, Mux(mag[-1] & (exp >= 1), exp, 0)[:8], "field5")  # 0 also when i is 0
        inf5, neg5 = reg(1, mag[-1] & (exp >= 255), "inf5"), reg(1, neg, "neg5")
        shifted, lost = funnel(top5, (32 - down5)[:6], 32)
        sticky = sticky5 | lost.any()
        top6 = reg(24, shifted[1:25], "top6")
        up6 = reg(1, shifted[0] & (sticky | shifted[1]), "up6")
        field6, inf6, neg6 = reg(8, field5, "field6"), reg(1, inf5, "inf6"), reg(1, neg5, "neg6")
        # The hidden bit is the field's lowest for normals; a carry out of the fraction is the next binade (or infinity,
        # or the smallest normal), which the plain addition gets right.
        packed = (Cat(top6[:23], field6) + up6)[:31]
        value = reg(32, Cat(Mux(inf6, 0xFF << 23, packed)[:31], neg6), "value7")
        m.d.comb += self.o.p.value.eq(value)
        return m


class _Pipe:
    """Valid bits and tags of a stallable pipeline: every stage moves when ``go``."""

    def __init__(self, m: Module, i, o, latency: int, tag):
        self.go = go = Signal()
        valid = Signal(latency)
        m.d.comb += [go.eq(o.ready | ~o.valid), i.ready.eq(go), o.valid.eq(valid[-1])]
        with m.If(go):
            m.d.sync += valid.eq(Cat(i.valid, valid[:-1]))
        previous = Value.cast(i.p.tag)
        if len(previous):
            for k in range(latency):
                r = Signal(len(previous), name=f"tag{k + 1}", reset_less=True)
                with m.If(go):
                    m.d.sync += r.eq(previous)
                previous = r
            m.d.comb += Value.cast(o.p.tag).eq(previous)
