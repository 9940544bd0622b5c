"""Multiplications shaped for DSP slices: sums of a few columns' products, inferred or instantiated."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.config import PRIMITIVES

from .streams import clog2

__all__ = ["Products"]

PORT_BITS = {"dsp48e1": 25, "dsp48e2": 27}  # A (its 30 bits beyond these skip the multiplier), D, and the pre-adder
P_BITS = 48
# OPMODE: what the adder takes (UG479 and UG579, "OPMODE Control Bits"); W is the DSP48E2's own
MULTIPLY, Z_PCIN, Z_P, Z_C, W_P = 0b000_01_01, 0b001 << 4, 0b010 << 4, 0b011 << 4, 0b01 << 7
INMODE_ADD_D = 0b00100  # the multiplier takes A + D

UNUSED = ("CEC", "CECTRL", "CEALUMODE", "CEINMODE", "CECARRYIN", "RSTA", "RSTB", "RSTC", "RSTD", "RSTM", "RSTP", "RSTCTRL",
          "RSTALUMODE", "RSTINMODE", "RSTALLCARRYIN")


class Products(wiring.Component):
    """``p[r][g] = sum over the group's columns c of x[c] * w[r * kc + c]``, for ``kr`` rows and ``kc / group`` groups.

    A group's columns are neighbours, added up along the cascade of their DSP slices, so the first levels of a kernel's adder
    trees take no logic: two columns a cycle, or one where the kernel has a cycle to spare (``kc`` an odd power of two).

    ``packed``: rows 2i and 2i + 1 share one multiplier, which multiplies ``x`` by ``(w[2i + 1] << shift) + w[2i]`` (the
    pre-adder's sum). A low sum below 0 would borrow from the high one; ``1 << (shift - 1)`` added with the first product
    prevents that, and turns round the low sum's sign bit only. The low sum must fit ``shift`` bits: two columns with the
    25 bits of a DSP48E1's multiplier (shift 16), four with the 27 of a DSP48E2's (shift 18). An odd last row has its own
    multiplier. ``x`` must not be -2**(act_bits - 1).

    ``acc_bits`` (where :meth:`accumulates` allows): ``p`` adds up over the steps, in the slice; ``restart`` with the step's
    ``enable[-1]`` begins a new sum with it.

    ``primitive``: "inferred" (synthesis finds the slices), or their instances, "dsp48e1" (UG479), "dsp48e2" (UG579): same
    results in the same cycles. Operands, products and sums have a register each (A, B, M and P of a slice), without which a
    slice does not reach its clock. ``enable[0]`` takes the operands; a step raises ``enable[s]`` s cycles later: columns of
    stage s are multiplied with ``enable[s + 1]`` and added with ``enable[s + 2]``. Latency: ``2 + stages`` cycles.
    """

    def __init__(self, kr: int, kc: int, act_bits: int, weight_bits: int, *, packed: bool = False,
                 primitive: str = "inferred", acc_bits: int = 0):
        if primitive not in PRIMITIVES:
            raise ValueError(f"primitive = {primitive!r}: must be one of {PRIMITIVES}")
        if packed and (act_bits, weight_bits) != (8, 8):
            raise ValueError(f"packed needs operands of 8 bits, not {act_bits} and {weight_bits}")
        if acc_bits and not self.accumulates(kc, packed, primitive):
            raise ValueError(f"acc_bits: {kc} columns of {primitive} slices, packed = {packed}, cannot accumulate")
        self.kr, self.kc, self.act_bits, self.weight_bits = kr, kc, act_bits, weight_bits
        self.packed, self.primitive, self.acc_bits = packed, primitive, acc_bits
        self.shift = 18 if primitive == "dsp48e2" else 16
        self.group = min(kc, 2 if packed and self.shift == 16 else 4)
        self.stages = 2 if self.group == 4 or (self.group == 2 and clog2(kc) % 2) else 1
        self.out_bits = acc_bits or act_bits + weight_bits - 1 + clog2(self.group)
        super().__init__({
            #: Of each stage: see above.
            "enable": In(self.stages + 2),
            #: ``kc`` activations.
            "x": In(data.ArrayLayout(signed(act_bits), kc)),
            #: ``kr`` rows of ``kc`` weights.
            "w": In(data.ArrayLayout(signed(weight_bits), kr * kc)),
            **({"restart": In(1)} if acc_bits else {}),
            #: A sum per row and group.
            "p": Out(data.ArrayLayout(data.ArrayLayout(signed(self.out_bits), kc // self.group), kr)),
        })

    @staticmethod
    def accumulates(kc: int, packed: bool, primitive: str) -> bool:
        """Whether slices can accumulate a row: one that is not packed, and whose products are all in one cascade. The last
        slice adds product, cascade and sum, for which a DSP48E1 (and what tools infer) has one input too few."""
        return not packed and kc <= (4 if primitive == "dsp48e2" else 1)

    def elaborate(self, platform):
        m = Module()
        # The operands of later stages wait in two registers. They have one enable, which slices and their inference ask
        # for: what the first takes without a valid step is never used.
        early = self.enable[0] if self.stages == 1 else Signal(name="early")
        if self.stages > 1:
            m.d.comb += early.eq(self.enable[0] | self.enable[1])
        chain = self._inferred if self.primitive == "inferred" else self._instances
        x = [self.x[c] for c in range(self.kc)]
        if self.primitive == "inferred":  # one register for all rows; tools copy it into slices
            x = [self._delay(m, v, self._stage(c) + 1, self._enable(c, early), f"x{c}") for c, v in enumerate(x)]
        for r in range(0, self.kr, 2 if self.packed else 1):
            pair = self.packed and r + 1 < self.kr
            for g in range(self.kc // self.group):
                columns = range(g * self.group, (g + 1) * self.group)
                p = chain(m, f"{r}_{g}", early, [x[c] for c in columns],
                          [[self.w[k * self.kc + c] for k in ((r, r + 1) if pair else (r,))] for c in columns])
                if pair:
                    low = Cat(p[:self.out_bits - 1], ~p[self.shift - 1])
                    m.d.comb += [
                        self.p[r][g].eq(low.as_signed()),
                        self.p[r + 1][g].eq(p[self.shift:].as_signed()),
                    ]
                else:
                    m.d.comb += self.p[r][g].eq(p)
        return m

    def _stage(self, c: int) -> int:
        """In which stage (from 0) column ``c`` is added to its group."""
        return c % self.group * self.stages // self.group

    def _enable(self, c: int, early: Value) -> Value:
        return early if self._stage(c) else self.enable[0]

    @staticmethod
    def _delay(m: Module, v: Value, registers: int, enable: Value, name: str) -> Value:
        for d in range(registers):
            held = Signal(v.shape(), name=f"{name}_{d}", reset_less=True)
            with m.If(enable):
                m.d.sync += held.eq(v)
            v = held
        return v

    def _inferred(self, m: Module, name: str, early: Value, x: list, w: list) -> Value:
        pair = len(w[0]) > 1
        bits = self.shift + self.out_bits if pair else self.act_bits + self.weight_bits - 1 + clog2(self.group)
        total = Const(1 << self.shift - 1, signed(bits)) if pair else None
        for c in range(self.group):
            stage = self._stage(c)
            enable = self._enable(c, early)
            terms = [self._delay(m, v, stage + 1 - pair, enable, f"w{name}_{c}_{k}") for k, v in enumerate(w[c])]
            operand = terms[0]
            if pair:
                operand = self._delay(m, terms[1].shift_left(self.shift) + operand, 1, enable, f"w{name}_{c}")
            product = Signal(signed(bits), name=f"m{name}_{c}", reset_less=True)
            with m.If(self.enable[stage + 1]):
                m.d.sync += product.eq(x[c] * operand)
            partial = Signal(signed(bits), name=f"s{name}_{c}")
            m.d.comb += partial.eq(product if total is None else total + product)
            total = partial
            if c + 1 == self.group or self._stage(c + 1) != stage:
                total = Signal(signed(self.acc_bits or bits), name=f"p{name}_{stage}", reset_less=True)
                with m.If(self.enable[stage + 2]):
                    m.d.sync += total.eq(partial + Mux(self.restart, 0, total) if self.acc_bits else partial)
        return total

    def _instances(self, m: Module, name: str, early: Value, x: list, w: list) -> Value:
        pair, e2 = len(w[0]) > 1, self.primitive == "dsp48e2"
        port = PORT_BITS[self.primitive]
        carry = None
        p = Signal(signed(P_BITS), name=f"p{name}")
        for c in range(self.group):
            stage = self._stage(c)
            ends = c + 1 == self.group or self._stage(c + 1) != stage
            out, cascade = Signal(P_BITS, name=f"out{name}_{c}"), Signal(P_BITS, name=f"cascade{name}_{c}")
            a, b, d = Signal(signed(30), name=f"a{name}_{c}"), Signal(signed(18), name=f"b{name}_{c}"), Const(0, port)
            m.d.comb += [
                a.eq(w[c][1].shift_left(self.shift) if pair else w[c][0]),
                b.eq(x[c]),
            ]
            if pair:
                d = Signal(signed(port), name=f"d{name}_{c}")
                m.d.comb += d.eq(w[c][0])
            opmode = Const(MULTIPLY | (Z_PCIN if carry is not None else Z_C if pair else 0), 9 if e2 else 7)
            if self.acc_bits and c + 1 == self.group:
                opmode = Mux(self.restart, opmode, opmode | (W_P if e2 else Z_P))
            depth, enable = stage + 1, self._enable(c, early)
            before = depth - 1 if pair else depth  # the pre-adder's register is the last one
            m.submodules[f"dsp{name}_{c}"] = Instance(
                self.primitive.upper(),
                p_AREG=before, p_ACASCREG=before, p_DREG=before if pair else 1, p_ADREG=1, p_BREG=depth, p_BCASCREG=depth,
                p_CREG=0, p_MREG=1, p_PREG=int(ends), p_ALUMODEREG=0, p_CARRYINREG=0,
                p_CARRYINSELREG=0, p_INMODEREG=0, p_OPMODEREG=0, p_A_INPUT="DIRECT", p_B_INPUT="DIRECT",
                p_USE_MULT="MULTIPLY", p_USE_SIMD="ONE48",
                **({"p_AMULTSEL": "AD" if pair else "A", "p_BMULTSEL": "B", "p_PREADDINSEL": "A"} if e2 else
                   {"p_USE_DPORT": "TRUE" if pair else "FALSE"}),
                i_CLK=ClockSignal(), i_A=a, i_B=b, i_D=d, i_C=Const(1 << self.shift - 1 if pair else 0, P_BITS),
                i_PCIN=Const(0, P_BITS) if carry is None else carry, i_ACIN=Const(0, 30), i_BCIN=Const(0, 18),
                i_OPMODE=opmode, i_INMODE=Const(INMODE_ADD_D if pair else 0, 5), i_ALUMODE=Const(0, 4),
                i_CARRYIN=Const(0, 1), i_CARRYINSEL=Const(0, 3), i_CARRYCASCIN=Const(0, 1), i_MULTSIGNIN=Const(0, 1),
                i_CEA1=enable, i_CEA2=enable, i_CEB1=enable, i_CEB2=enable, i_CED=enable, i_CEAD=enable,
                i_CEM=self.enable[stage + 1], i_CEP=self.enable[stage + 2],
                **{f"i_{n}": Const(0, 1) for n in UNUSED},
                o_P=out, o_PCOUT=cascade)
            carry = cascade
        m.d.comb += p.eq(out)
        return p
