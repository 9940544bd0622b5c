"""Multiplications made of LUTs, for a kernel's rows that find no DSP slice."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .streams import clog2

__all__ = ["LutProducts"]

DIGIT = 2  # bits of a weight that one adder takes; the multiples of an activation are there for all rows


class LutProducts(wiring.Component):
    """The sums of :class:`.Products` (``kr`` rows, groups of ``group`` columns, latency ``2 + stages``), without slices.

    A weight is read in digits of two bits, each of which picks 0, 1, 2 or 3 times the activation; the uppermost, which
    has the sign, 0, 1, -2 or -1 times. A product is then an adder for every digit but the first, whose LUTs do the picking
    too. No tool takes that for a multiplication. ``x`` must not be -2**(act_bits - 1).

    Registers hold operands, products and each level of a group's sum; ``enable[s]`` lets the s-th of them in.
    """

    def __init__(self, kr: int, kc: int, act_bits: int, weight_bits: int, *, group: int, stages: int):
        if weight_bits < 2 * DIGIT or weight_bits % DIGIT:
            raise ValueError(f"weight_bits = {weight_bits}: must be a multiple of {DIGIT} and at least {2 * DIGIT}")
        if clog2(group) > stages:
            raise ValueError(f"stages = {stages}: {group} products are added in {clog2(group)}")
        self.kr, self.kc, self.act_bits, self.weight_bits = kr, kc, act_bits, weight_bits
        self.group, self.stages = group, stages
        self.out_bits = act_bits + weight_bits - 1 + clog2(group)
        super().__init__({
            #: Of each stage: see above.
            "enable": In(stages + 2),
            #: ``kc`` activations.
            "x": In(data.ArrayLayout(signed(act_bits), kc)),
            #: ``kr`` rows of ``kc`` weights.
            "w": In(data.ArrayLayout(signed(weight_bits), kr * kc)),
            #: A sum per row and group.
            "p": Out(data.ArrayLayout(data.ArrayLayout(signed(self.out_bits), kc // group), kr)),
        })

    def elaborate(self, platform):
        m = Module()
        columns = [self._multiples(m, self.x[c], f"x{c}") for c in range(self.kc)]
        for r in range(self.kr):
            products = []
            for c, multiples in enumerate(columns):
                w = self._register(m, 0, self.w[r * self.kc + c], f"w{r}_{c}")
                products.append(self._register(m, 1, self._product(m, multiples, w, f"{r}_{c}"), f"m{r}_{c}"))
            for g in range(self.kc // self.group):
                level = products[g * self.group:(g + 1) * self.group]
                for s in range(self.stages):
                    if len(level) > 1:
                        level = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
                    level = [self._register(m, s + 2, v, f"p{r}_{g}_{s}_{i}") for i, v in enumerate(level)]
                m.d.comb += self.p[r][g].eq(level[0])
        return m

    def _register(self, m: Module, stage: int, v: Value, name: str) -> Signal:
        held = Signal(v.shape(), name=name, reset_less=True)
        with m.If(self.enable[stage]):
            m.d.sync += held.eq(v)
        return held

    def _multiples(self, m: Module, x: Value, name: str) -> tuple[Signal, Signal, Signal]:
        """``x``, three times ``x`` and minus ``x``, held."""
        minus = Signal(signed(self.act_bits), name=f"{name}_negated")
        m.d.comb += minus.eq(-x)
        return (self._register(m, 0, x, name), self._register(m, 0, x + (x << 1), f"{name}_triple"),
                self._register(m, 0, minus, f"{name}_minus"))

    def _product(self, m: Module, multiples: tuple[Signal, Signal, Signal], w: Signal, name: str) -> Value:
        x, triple, minus = multiples
        bits = self.act_bits + DIGIT  # of every partial sum without the digits' finished bits
        finished: list[Value] = []
        total: Value | None = None
        for i in range(0, self.weight_bits, DIGIT):
            ends = i + DIGIT == self.weight_bits
            picked = Signal(signed(bits), name=f"pick{name}_{i}")
            m.d.comb += picked.eq(Mux(w[i + 1], Mux(w[i], minus if ends else triple, (minus if ends else x) << 1),
                                      Mux(w[i], x, 0)))
            if total is None:
                total = picked
                continue
            finished.append(total[:DIGIT])
            partial = Signal(signed(bits), name=f"sum{name}_{i}")
            m.d.comb += partial.eq((total >> DIGIT) + picked)
            total = partial
        assert total is not None
        return Cat(*finished, total)[:self.act_bits + self.weight_bits - 1].as_signed()
