"""The exact quotient of a MEAN, good for one correct rounding."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ...primitives.register_slice import RegisterSlice
from .shapes import Shapes

__all__ = ["MeanDivider"]


class MeanDivider(wiring.Component):
    """Sums in, integers for ``IntToFp32`` out: the sum itself, or for ``mean`` a quotient that rounds as sum / count does.

    The magnitude is normalised, then divided bit by bit (restoring, two bits a cycle) until the quotient has at least 27
    significant bits; one sticky bit below them stands for the rest, so rounding to 24 bits or fewer is that of the
    exact quotient. A sum passes at one per cycle; a mean takes :attr:`cycles` cycles. A zero sum passes; a zero ``count``
    gives 0.
    """

    def __init__(self, config: DeviceConfig):
        self.s = s = Shapes(config)
        self.out_bits = max(s.acc_bits, s.dividend_bits + 2)
        self.steps = [1 << k for k in reversed(range((s.acc_bits - 1).bit_length()))]  # of the normalisation
        self.cycles = 2 + len(self.steps) + s.dividend_bits // 2
        super().__init__({
            #: Sums, and whether and by what each is divided.
            "i": In(stream.Signature(data.StructLayout({
                "value": signed(s.acc_bits), "e": signed(9), "mean": 1, "count": s.layouts.bag_bits,
                "tag": s.element_tag}))),
            #: Integers times 2**``e``, in order.
            "o": Out(stream.Signature(data.StructLayout({
                "i": signed(self.out_bits), "e": signed(10), "tag": s.element_tag}))),
        })

    def elaborate(self, platform):
        m = Module()
        s = self.s
        # Whether there is something to divide is found as an element comes in, and waits beside it.
        m.submodules.next = given = RegisterSlice(self.i.p.shape(), "through")
        connect(m, flipped(self.i), given.i)
        new, i, p = given.i.p, given.o, given.o.p
        some, none = Signal(), Signal()
        with m.If(given.i.ready):
            m.d.sync += [
                some.eq(new.mean & new.value.any() & new.count.any()),
                none.eq(new.mean & ~new.count.any()),
            ]
        bits, n, bag = s.acc_bits, s.dividend_bits, s.layouts.bag_bits
        o_valid = Signal()
        o = Signal(self.o.p.shape(), reset_less=True)
        m.d.comb += [
            self.o.valid.eq(o_valid),
            self.o.p.eq(o),
        ]
        free = ~o_valid | self.o.ready
        with m.If(self.o.ready):
            m.d.sync += o_valid.eq(0)

        neg, x = Signal(reset_less=True), Signal(bits, reset_less=True)
        exp, tag = Signal(signed(10), reset_less=True), Signal(s.element_tag, reset_less=True)
        count, rest = Signal(bag, reset_less=True), Signal(bag, reset_less=True)
        quotient = Signal(n, reset_less=True)
        step = Signal(range(max(len(self.steps), n // 2) + 1), reset_less=True)

        with m.FSM():
            with m.State("PASS"):
                with m.If(i.valid & some):
                    m.d.comb += i.ready.eq(1)
                    m.d.sync += [
                        neg.eq(p.value < 0),
                        x.eq(Mux(p.value < 0, -p.value, p.value)),
                        count.eq(p.count),
                        rest.eq(0),
                        # The quotient of the first n bits of the dividend, with the sticky bit below it.
                        exp.eq(p.e + (bits - n - 1)),
                        tag.eq(p.tag),
                        step.eq(0),
                    ]
                    m.next = "NORMALISE"
                with m.Elif(i.valid & free):
                    m.d.comb += i.ready.eq(1)
                    m.d.sync += [
                        o_valid.eq(1),
                        o.e.eq(p.e),
                        o.tag.eq(p.tag),
                        o.i.eq(Mux(none, 0, p.value)),
                    ]
            with m.State("NORMALISE"):
                with m.Switch(step):
                    for k, by in enumerate(self.steps):
                        with m.Case(k):
                            with m.If(~x[bits - by :].any()):
                                m.d.sync += [
                                    x.eq(x << by),
                                    exp.eq(exp - by),
                                ]
                m.d.sync += step.eq(step + 1)
                with m.If(step == len(self.steps) - 1):
                    m.d.sync += step.eq(0)
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                r, q = rest, []
                for k in range(2):
                    trial = Cat(x[bits - 1 - k], r)
                    difference = trial - count
                    fits = ~difference[-1]
                    q.insert(0, fits)
                    r = Mux(fits, difference[:bag], trial[:bag])
                m.d.sync += [
                    rest.eq(r),
                    quotient.eq(Cat(*q, quotient)),
                    x.eq(Cat(Const(0, 2), x)),
                    step.eq(step + 1),
                ]
                with m.If(step == n // 2 - 1):
                    m.next = "RESULT"
            with m.State("RESULT"):
                with m.If(free):
                    magnitude = Cat(rest.any() | x.any(), quotient)
                    m.d.sync += [
                        o_valid.eq(1),
                        o.i.eq(Mux(neg, -magnitude, magnitude)),
                        o.e.eq(exp),
                        o.tag.eq(tag),
                    ]
                    m.next = "PASS"
        return m
