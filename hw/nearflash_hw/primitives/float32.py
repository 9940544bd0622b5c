"""IEEE 754 single precision, as far as the device needs it: to integers in, from integers out, each one rounding.

Bit-exact models: :mod:`nearflash.reference.fp32`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for

__all__ = [
    "FP32_NAN",
    "FP32_ONE",
    "STEP",
    "Fp32Quantizer",
    "IntToFp32",
    "Placed",
    "fp32_fields",
    "place_coarse",
    "place_fine",
    "shift_left",
]

FP32_ONE = 0x3F80_0000
FP32_NAN = 0x7FC0_0000
STEP = 16  # of a coarse shift
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


class Placed(NamedTuple):
    """What :func:`place_coarse` gives: ``bits`` of the window with the STEP - 1 below it, and whether there is anything
    below or above these."""

    bits: Value
    below: Value
    above: Value


def place_coarse(value: Value, steps: Value, size: int) -> Placed:
    """The first half of placing ``value``, of n bits, in a window of ``size`` bits, the lowest of which is its bit n before
    it goes up by ``amount`` (0 to n + size). ``steps``: one bit, number ``amount`` // STEP, is set.

    The window sees a few places of ``value`` per bit, so that a step's one-hot select and these are a LUT.
    """
    n, least = len(value), 1 - STEP  # the lowest place that a fine shift may bring into the window

    def place(at: int) -> Value:
        return Cat(steps[c] & value[at + n - STEP * c] for c in range(len(steps)) if 0 <= at + n - STEP * c < n).any()

    def some(of: Callable[[int], Value]) -> Value:
        return Cat(steps[c] & of(STEP * c).any() for c in range(len(steps))).any()

    return Placed(Cat(place(at) for at in range(least, size)), some(lambda by: value[: max(0, n + least - by)]),
                  some(lambda by: value[max(0, min(n, n + size - by)) :]))


def place_fine(placed: Placed, by: Value, size: int) -> tuple[Value, Value, Value]:
    """(the window, whether anything lies below it, whether anything lies above it) after the rest of the shift, ``by`` =
    ``amount`` % STEP."""
    bits, margin = placed.bits, STEP - 1
    below = Cat(bits[k] & (by < margin - k) for k in range(margin)).any()
    above = Cat(bits[k] & (by >= margin + size - k) for k in range(size, size + margin)).any()
    return shift_left(bits, by, len(bits))[margin:], placed.below | below, placed.above | above


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
            #: fp32 bits, and the scale ``mult`` * 2**-``shift``.
            "i": In(stream.Signature(data.StructLayout(
                {"value": 32, "mult": 16, "shift": signed(8), "tag": tag}))),
            #: Integers, in order.
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
        # The magnitude's bits and one below the point, as the window's lowest.
        size, most = self.out_bits, width + self.out_bits
        amount1 = reg(signed(10), field - p.shift + (width + 1 - BIAS), "amount1")
        neg1, nan1 = reg(1, neg, "neg1"), reg(1, nan, "nan1")
        inf1 = reg(1, special & ~nan, "inf1")
        # Two product registers for the DSP's M and P; the shift amount meanwhile.
        product2 = reg(width, a * b, "product2")
        amount2 = reg(bits_for(most), Mux(amount1 < 0, 0, Mux(amount1 > most, most, amount1)), "amount2")
        neg2, nan2, inf2 = reg(1, neg1, "neg2"), reg(1, nan1, "nan2"), reg(1, inf1 & b.any(), "inf2")
        product3 = reg(width, product2, "product3")
        steps3 = reg(most // STEP + 1, 1 << amount2[4:], "steps3")
        fine3, neg3, nan3, inf3 = reg(4, amount2, "fine3"), reg(1, neg2, "neg3"), reg(1, nan2, "nan3"), reg(1, inf2, "inf3")
        placed = place_coarse(product3, steps3, size)
        placed4 = Placed(reg(len(placed.bits), placed.bits, "placed4"), reg(1, placed.below, "below4"),
                         reg(1, placed.above, "above4"))
        fine4, neg4, nan4, inf4 = reg(4, fine3, "fine4"), reg(1, neg3, "neg4"), reg(1, nan3, "nan4"), reg(1, inf3, "inf4")
        window, below, above = place_fine(placed4, fine4, size)
        # One bit above the limit is kept, so that rounding up to the limit + 1 still clamps.
        mag5 = reg(self.out_bits, window[1:], "mag5")
        up5 = reg(1, window[0] & (below | window[1]), "up5")
        over5 = reg(1, inf4 | above, "over5")
        neg5, zero5 = reg(1, neg4, "neg5"), reg(1, nan4, "zero5")
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
            #: Integers times 2**``e``.
            "i": In(stream.Signature(data.StructLayout(
                {"i": signed(in_bits), "e": signed(exp_bits), "tag": tag}))),
            #: fp32 bits, in order.
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
        by_bytes = top5 >> Cat(Const(0, 3), down5[3:])
        shifted = by_bytes >> down5[:3]
        lost = Cat(*(top5[8 * k : 8 * k + 8].any() & (down5[3:] > k) for k in range(3)),
                   *(by_bytes[k] & (down5[:3] > k) for k in range(7)))
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
        m.d.comb += [
            go.eq(o.ready | ~o.valid),
            i.ready.eq(go),
            o.valid.eq(valid[-1]),
        ]
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
