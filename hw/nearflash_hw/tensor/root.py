"""1 / sqrt of LayerNorm's spread: a square root and a reciprocal, a digit a cycle."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import index_bits

__all__ = ["SPREAD_BITS", "ReciprocalRoot", "ReciprocalRoots", "recip_layout"]

SPREAD_BITS = 52  # 1024 channels of 16 bits, and eps: below 2**50 + 2**48
RECIP_BITS, SHIFT_BITS = 16, 6
ROOT_DIGITS, QUOTIENT_DIGITS = 16, 17
MANTISSA_BITS = 24
SHIFT_MOST = 17 + (SPREAD_BITS - MANTISSA_BITS) // 2  # of a spread that fills its bits


def recip_layout() -> data.StructLayout:
    """``recip`` times 2**-``shift``: (x - mean) / sigma, 10 bits below the point, over the C-fold deviation."""
    return data.StructLayout({"recip": RECIP_BITS, "shift": SHIFT_BITS})


class ReciprocalRoot(wiring.Component):
    """:func:`nearflash.reference.tensor.norm.reciprocal_root` of spreads ``i`` (1 to 2**52 - 1), one at a time, with the
    shift that the definition gives it (docs/offload.md, LAYERNORM). CYCLES from one to the next."""

    STEPS = (32, 16, 8, 4, 2)  # of the normalisation
    CYCLES = 2 + len(STEPS) + ROOT_DIGITS + QUOTIENT_DIGITS

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(SPREAD_BITS)),
            "o": Out(stream.Signature(recip_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        spread, shift = Signal(SPREAD_BITS, reset_less=True), Signal(SHIFT_BITS, reset_less=True)
        rest, root = Signal(ROOT_DIGITS + 2, reset_less=True), Signal(ROOT_DIGITS, reset_less=True)
        quotient = Signal(QUOTIENT_DIGITS, reset_less=True)
        step = Signal(range(QUOTIENT_DIGITS), reset_less=True)
        m.d.comb += [
            self.o.payload.recip.eq(Mux(quotient[-1], ~0, quotient[:RECIP_BITS])),
            self.o.payload.shift.eq(shift),
        ]
        m.d.sync += step.eq(step + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    spread.eq(self.i.payload),
                    shift.eq(SHIFT_MOST),
                    step.eq(0),
                ]
                with m.If(self.i.valid):
                    m.next = "NORMALISE"
            with m.State("NORMALISE"):  # to an even shift
                with m.Switch(step):
                    for k, by in enumerate(self.STEPS):
                        with m.Case(k):
                            with m.If(~spread[SPREAD_BITS - by:].any()):
                                m.d.sync += [
                                    spread.eq(spread << by),
                                    shift.eq(shift - by // 2),
                                ]
                m.d.sync += [
                    rest.eq(0),
                    root.eq(0),
                ]
                with m.If(step == len(self.STEPS) - 1):
                    m.d.sync += step.eq(0)
                    m.next = "ROOT"
            with m.State("ROOT"):  # of the mantissa, the upper 24 bits, and 8 zeros
                radicand = Cat(spread[-2:], rest)
                difference = Signal(ROOT_DIGITS + 4)
                m.d.comb += difference.eq(radicand - Cat(Const(1, 2), root))
                fits = ~difference[-1]
                m.d.sync += [
                    rest.eq(Mux(fits, difference, radicand)),
                    root.eq(Cat(fits, root)),
                    spread.eq(Cat(Const(0, 2), spread)),
                ]
                with m.If(step == MANTISSA_BITS // 2 - 1):  # what lies below the mantissa doesn't count
                    m.d.sync += spread.eq(0)
                with m.If(step == ROOT_DIGITS - 1):
                    m.d.sync += [
                        rest.eq(1 << ROOT_DIGITS - 1),  # 2**31 but for the zeros to come
                        step.eq(0),
                    ]
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                trial = Signal(ROOT_DIGITS + 2)
                m.d.comb += trial.eq(rest - root)
                fits = ~trial[-1]
                m.d.sync += [
                    rest.eq(Mux(fits, trial, rest) << 1),
                    quotient.eq(Cat(fits, quotient)),
                ]
                with m.If(step == QUOTIENT_DIGITS - 1):
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m


class ReciprocalRoots(wiring.Component):
    """``copies`` of :class:`ReciprocalRoot`, each served in its turn: results in order, ``copies`` times as many."""

    def __init__(self, copies: int):
        if copies < 1:
            raise ValueError(f"copies = {copies}: must be at least 1")
        self.copies = copies
        super().__init__({
            "i": In(stream.Signature(SPREAD_BITS)),
            "o": Out(stream.Signature(recip_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        units = [ReciprocalRoot() for _ in range(self.copies)]
        given, taken = (Signal(index_bits(self.copies), name=n) for n in ("given", "taken"))
        for k, unit in enumerate(units):
            m.submodules[f"root{k}"] = unit
            m.d.comb += [
                unit.i.payload.eq(self.i.payload),
                unit.i.valid.eq(self.i.valid & (given == k)),
                unit.o.ready.eq(self.o.ready & (taken == k)),
            ]
        m.d.comb += [
            self.i.ready.eq(Array(u.i.ready for u in units)[given]),
            self.o.valid.eq(Array(u.o.valid for u in units)[taken]),
            self.o.payload.as_value().eq(Array(u.o.payload.as_value() for u in units)[taken]),
        ]
        for turn, port in ((given, self.i), (taken, self.o)):
            with m.If(port.valid & port.ready):
                m.d.sync += turn.eq(Mux(turn == self.copies - 1, 0, turn + 1))
        return m
