"""The gateware of :func:`nearflash.reference.requantize.requantize`."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.reference.requantize import ACC_BITS, MULT_BITS

__all__ = ["SHIFT_BITS", "Requantizer", "Scale"]

SHIFT_BITS = 6
LOW_BITS = 23  # the multiplication is split so that each half fits one DSP (25 x 18 on 7-series)


class Scale(data.StructLayout):
    """An output's entry (contract.program, contract.tensor_image), narrowed to the bits the arithmetic has."""

    def __init__(self):
        super().__init__({
            "bias": signed(ACC_BITS),
            "mult": MULT_BITS,
            "shift": SHIFT_BITS,
        })


class Requantizer(wiring.Component):
    """``q = clamp((acc * mult + half) >> shift)`` on ``lanes`` lanes, :attr:`LATENCY` cycles, never stalls.

    ``tag`` (``tag_bits`` bits) comes out with its ``q``. Rounding half up needs no constant of its own:
    ``(v + 2**(s-1)) >> s = (v >> s) + bit s-1 of v``. ``acc_bits``: of an accumulator; one multiplication up to 24, two
    beyond.
    """

    LATENCY = 6

    def __init__(self, lanes: int, bits: int, relu: bool, tag_bits: int, acc_bits: int = ACC_BITS):
        if not 1 < acc_bits <= ACC_BITS:
            raise ValueError(f"acc_bits = {acc_bits}: must be 2 to {ACC_BITS}")
        self.acc_bits = acc_bits
        self.lanes, self.bits, self.relu = lanes, bits, relu
        super().__init__({
            #: An input, a lane each.
            "valid": In(1),
            "acc": In(data.ArrayLayout(signed(acc_bits), lanes)),
            "mult": In(data.ArrayLayout(MULT_BITS, lanes)),
            "shift": In(data.ArrayLayout(SHIFT_BITS, lanes)),
            "tag": In(tag_bits),
            #: Its output.
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
        m.d.comb += [
            self.o_valid.eq(valid[-1]),
            self.o_tag.eq(tag[-1]),
        ]
        for k in range(self.lanes):
            m.d.comb += self.q[k].eq(self._lane(m, k, valid))
        return m

    def _lane(self, m: Module, k: int, valid: list) -> Signal:
        def reg(shape, name):
            return Signal(shape, name=f"{name}{k}", reset_less=True)

        bits = self.bits
        shift1, shift2, shift3 = reg(SHIFT_BITS, "shift1_"), reg(SHIFT_BITS, "shift2_"), reg(3, "shift3_")
        with m.If(valid[0]):
            m.d.sync += shift1.eq(self.shift[k])
        with m.If(valid[1]):
            m.d.sync += shift2.eq(shift1)
        if self.acc_bits <= LOW_BITS + 1:
            once, product = (reg(signed(self.acc_bits + MULT_BITS), name) for name in ("once", "product"))
            with m.If(valid[0]):
                m.d.sync += once.eq(self.acc[k] * self.mult[k])
            with m.If(valid[1]):
                m.d.sync += product.eq(once)
        else:
            low = reg(LOW_BITS + MULT_BITS, "low")
            high = reg(signed(self.acc_bits - LOW_BITS + MULT_BITS), "high")
            with m.If(valid[0]):
                m.d.sync += [
                    low.eq(self.acc[k][:LOW_BITS] * self.mult[k]),
                    high.eq(self.acc[k][LOW_BITS:].as_signed() * self.mult[k]),
                ]
            # the sum of the halves is in the high half's DSP
            top, rest = reg(high.shape(), "top"), reg(LOW_BITS, "rest")
            with m.If(valid[1]):
                m.d.sync += [
                    top.eq(high + low[LOW_BITS:]),
                    rest.eq(low[:LOW_BITS]),
                ]
            product = Cat(rest, top)
        # Of the shifted product only bits + 2 bits are needed (one of them below the point), and whether all others are
        # copies of the sign: first by whole bytes, keeping what the other 7 places may bring in.
        width, sign_in = bits + 2 + 7, product[-1]
        product = Cat(0, product)
        extended = Cat(product, sign_in.replicate(width + 64 - len(product)))
        coarse, sign, sign4 = reg(width, "coarse"), reg(1, "sign"), reg(1, "sign4_")
        beyond = [product[i:i + 8] for i in range(width, len(product), 8)]
        differs = reg(max(1, len(beyond)), "differs")
        bytes_in = shift2[3:]
        with m.If(valid[2]):
            m.d.sync += [
                coarse.eq(Array(extended[8 * i:][:width] for i in range(8))[bytes_in]),
                sign.eq(sign_in),
                shift3.eq(shift2[:3]),
            ]
            m.d.sync += [differs[i].eq((v != sign_in.replicate(len(v))) & (bytes_in <= i)) for i, v in enumerate(beyond)]
        fine, fits = reg(bits + 2, "fine"), reg(1, "fits")
        with m.If(valid[3]):
            m.d.sync += [
                fine.eq(coarse >> shift3),
                sign4.eq(sign),
                fits.eq(~differs.any() & Array(coarse[bits + 1 + i:] == sign.replicate(width - bits - 1 - i)
                                               for i in range(8))[shift3]),
            ]
        # Limited to bits + 1 bits first, which no rounding brings back into range, so the rounding adder is short.
        whole, rounding = reg(signed(bits + 1), "whole"), reg(1, "rounding")
        with m.If(valid[4]):
            m.d.sync += [
                whole.eq(Mux(fits, fine[1:], Cat((~sign4).replicate(bits), sign4)).as_signed()),
                rounding.eq(fine[0]),
            ]
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
