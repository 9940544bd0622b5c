"""The multiplier array of an FC core."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.mlp import kernel_latency

from .streams import clog2

__all__ = ["Kernel"]


class Kernel(wiring.Component):
    """``kr`` x ``kc`` multipliers and ``kr`` adder trees (paper: FC kernel), one step per cycle, never stalls.

    ``sums[r] = sum over c of x[c] * w[r * kc + c]``, :attr:`latency` cycles after ``valid``. ``w`` is taken with
    ``valid & load`` and kept, so the samples of a group share one weight word. Operands are symmetric on the ``x`` side
    (never -2**(act_bits-1)), so a product fits act_bits + weight_bits - 1 bits. Registers change only for a valid step.
    """

    def __init__(self, kr: int, kc: int, act_bits: int, weight_bits: int):
        self.kr, self.kc, self.act_bits, self.weight_bits = kr, kc, act_bits, weight_bits
        self.out_bits = act_bits + weight_bits - 1 + clog2(kc)
        super().__init__({
            "valid": In(1), "load": In(1),
            "x": In(data.ArrayLayout(signed(act_bits), kc)),
            "w": In(data.ArrayLayout(signed(weight_bits), kr * kc)),
            "sums": Out(data.ArrayLayout(signed(self.out_bits), kr)),
        })

    @property
    def latency(self) -> int:
        """Operand registers, products, and one register per two adder levels."""
        return kernel_latency(self.kc)

    def elaborate(self, platform):
        m = Module()
        kr, kc = self.kr, self.kc
        x = [Signal(signed(self.act_bits), name=f"x{c}", reset_less=True) for c in range(kc)]
        w = [Signal(signed(self.weight_bits), name=f"w{i}", reset_less=True) for i in range(kr * kc)]
        enable = [Signal(name=f"enable{s}") for s in range(self.latency - 1)]
        m.d.sync += enable[0].eq(self.valid)
        m.d.sync += [b.eq(a) for a, b in zip(enable, enable[1:], strict=False)]
        with m.If(self.valid):
            m.d.sync += [x[c].eq(self.x[c]) for c in range(kc)]
            with m.If(self.load):
                m.d.sync += [w[i].eq(self.w[i]) for i in range(kr * kc)]
        bits = self.act_bits + self.weight_bits - 1
        rows = [[Signal(signed(bits), name=f"p{r}_{c}", reset_less=True) for c in range(kc)] for r in range(kr)]
        with m.If(enable[0]):
            m.d.sync += [rows[r][c].eq(x[c] * w[r * kc + c]) for r in range(kr) for c in range(kc)]
        for stage in range(1, self.latency - 1):
            with m.If(enable[stage]):
                for r in range(kr):
                    level = rows[r]
                    for _ in range(2):
                        if len(level) > 1:
                            level = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
                    held = [Signal(v.shape(), name=f"t{stage}_{r}_{i}", reset_less=True) for i, v in enumerate(level)]
                    m.d.sync += [h.eq(v) for h, v in zip(held, level, strict=True)]
                    rows[r] = held
        m.d.comb += [self.sums[r].eq(rows[r][0]) for r in range(kr)]
        return m
