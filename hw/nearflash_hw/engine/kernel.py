"""The multiplier array of an FC core."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.mlp import kernel_latency

from .lut_products import LutProducts
from .products import Products
from .streams import clog2

__all__ = ["Kernel"]


class Kernel(wiring.Component):
    """``kr`` x ``kc`` multipliers and ``kr`` adder trees (paper: FC kernel), one step per cycle, never stalls.

    ``sums[r] = sum over c of x[c] * w[r * kc + c]``, :attr:`latency` cycles after ``valid``. Operands are symmetric on the
    ``x`` side (never -2**(act_bits-1)), so a product fits act_bits + weight_bits - 1 bits. Registers change only for a
    valid step. ``packed`` (rows in pairs, when there are two), ``primitive``: see :class:`.Products`, whose groups are the
    trees' leaves. ``lut_rows``: that many rows, the last, multiply in LUTs (:class:`.LutProducts`). None of them changes
    results or latency.

    With ``acc_bits`` (where :meth:`accumulates` says so) ``sums`` adds up over the steps; ``restart``, one cycle before the
    step's sums, begins with that step.
    """

    def __init__(self, kr: int, kc: int, act_bits: int, weight_bits: int, *, packed: bool = False,
                 primitive: str = "inferred", acc_bits: int = 0, lut_rows: int = 0):
        if not 0 <= lut_rows < kr:
            raise ValueError(f"lut_rows = {lut_rows}: must be at least 0 and less than kr = {kr}")
        if acc_bits and lut_rows:
            raise ValueError(f"acc_bits: {lut_rows} rows of LUTs cannot accumulate")
        self.kr, self.kc, self.acc_bits, self.lut_rows = kr, kc, acc_bits, lut_rows
        slices = kr - lut_rows
        self.products = Products(slices, kc, act_bits, weight_bits, packed=packed and slices > 1, primitive=primitive,
                                 acc_bits=acc_bits)
        self.out_bits = acc_bits or act_bits + weight_bits - 1 + clog2(kc)
        super().__init__({
            #: A step: ``x`` and ``w`` are taken.
            "valid": In(1),
            #: ``kc`` activations.
            "x": In(data.ArrayLayout(signed(act_bits), kc)),
            #: ``kr`` rows of ``kc`` weights.
            "w": In(data.ArrayLayout(signed(weight_bits), kr * kc)),
            **({"restart": In(1)} if acc_bits else {}),
            #: :attr:`latency` cycles later, a row each.
            "sums": Out(data.ArrayLayout(signed(self.out_bits), kr)),
        })

    @staticmethod
    def accumulates(kr: int, kc: int, packed: bool, primitive: str, lut_rows: int = 0) -> bool:
        """Whether such a kernel can accumulate inside its DSP slices."""
        return not lut_rows and Products.accumulates(kc, packed and kr > 1, primitive)

    @property
    def latency(self) -> int:
        """Operands, products, sums in the slices, and one register per two adder levels."""
        return kernel_latency(self.kc)

    def elaborate(self, platform):
        m = Module()
        m.submodules.products = products = self.products
        enable = [self.valid, *(Signal(name=f"enable{s}") for s in range(1, self.latency))]
        m.d.sync += [b.eq(a) for a, b in zip(enable, enable[1:], strict=False)]
        m.d.comb += [
            products.x.eq(self.x),
            products.w.eq(self.w),
            products.enable.eq(Cat(enable[:len(products.enable)])),
        ]
        sums = [products.p[r] for r in range(products.kr)]
        if self.lut_rows:
            m.submodules.in_luts = in_luts = LutProducts(self.lut_rows, self.kc, products.act_bits, products.weight_bits,
                                                         group=products.group, stages=products.stages)
            m.d.comb += [
                in_luts.x.eq(self.x),
                in_luts.enable.eq(products.enable),
                *(in_luts.w[i].eq(self.w[products.kr * self.kc + i]) for i in range(self.lut_rows * self.kc)),
            ]
            sums += [in_luts.p[r] for r in range(self.lut_rows)]
        if self.acc_bits:
            m.d.comb += products.restart.eq(self.restart)
        rows = [[p[g] for g in range(self.kc // products.group)] for p in sums]
        for stage in range(products.stages + 2, self.latency):
            with m.If(enable[stage]):
                for r in range(self.kr):
                    level = rows[r]
                    for _ in range(2):
                        if len(level) > 1:
                            level = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
                    held = [Signal(v.shape(), name=f"t{stage}_{r}_{i}", reset_less=True) for i, v in enumerate(level)]
                    m.d.sync += [h.eq(v) for h, v in zip(held, level, strict=True)]
                    rows[r] = held
        m.d.comb += [self.sums[r].eq(rows[r][0]) for r in range(self.kr)]
        return m
