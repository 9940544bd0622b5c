"""Pooling of embedding rows in a fixed-point window: the integer model that defines every bit the device returns.

A table has a window of ``acc_bits`` bits whose least significant bit weighs 2**lsb_exp. Each lookup adds to every
element's accumulator the integer::

    FP32, FP16   RNE(value * weight * 2**-lsb_exp)                            one rounding, of the exact product
    INT8         RNE(ws * q * 2**-lsb_exp) + RNE(wb * 2**-lsb_exp)            ws = RN24(weight * scale),
                                                                              wb = RN24(weight * bias)

with weight 1 when the bag is not weighted, RNE rounding to an integer (nearest, ties to even), RN24 rounding to a 24-bit
significand (nearest even, exponent unbounded: FBGEMM's order of operations; exact when the weight is 1). Subnormals are
exact. The sum is an exact integer, so it does not depend on the order of the lookups. It becomes fp32 by one rounding to
nearest even: sum * 2**lsb_exp for SUM, the exact quotient sum / count * 2**lsb_exp for MEAN. An empty bag pools to +0.0.

Flags, per lookup: *not finite* when an element, scale, bias or weight is NaN or infinite; *overflow* when a rounded
contribution is not below 2**(acc_bits - 1 - headroom) in magnitude (INT8: either part, against
2**(acc_bits - 2 - headroom)). While a bag holds at most 2**headroom lookups and no flag is raised, no order of additions
leaves the window. A flagged bag's value is undefined; the device returns NaN for the whole sample.

Error of a SUM against the exact real sum of its n lookups (:func:`error_bound`): at most n * 2**(lsb_exp - 1) (INT8:
n * 2**lsb_exp, and for weighted INT8 2**-24 of the sum of ``|weight * scale * q| + |weight * bias|``), plus half a unit in
the last place of the fp32 result. With a window that represents every contribution (:func:`is_exact`) only the last
term is left: the result is the exact sum rounded once to fp32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..contract.errors import DataError
from ..contract.table import PoolMode, RowFormat, TableSpec
from .fp32 import int_to_fp32, ratio_to_fp32, round24

__all__ = ["PoolInfo", "Rows", "choose_window", "contributions", "decode_rows", "error_bound", "is_exact", "pool_bags"]

LSB_MIN, LSB_MAX = -250, 127
CHUNK_ELEMENTS = 1 << 21  # elements converted at once, so that millions of lookups need little memory


@dataclass(frozen=True)
class Rows:
    """Decoded rows. ``values`` [n, dim]: float32, float16 or (INT8) uint8; ``scale``, ``bias`` [n] float32, INT8 only."""

    format: RowFormat
    values: np.ndarray
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None

    def exact(self) -> np.ndarray:
        """[n, dim] float64: the elements' values (INT8: rounded to float64, for reports only)."""
        v = self.values.astype(np.float64)
        if self.format != RowFormat.INT8:
            return v
        assert self.scale is not None
        assert self.bias is not None
        return v * self.scale.astype(np.float64)[:, None] + self.bias.astype(np.float64)[:, None]


@dataclass(frozen=True)
class PoolInfo:
    """``sums`` [bags, dim] int64 accumulators; ``not_finite``, ``overflow`` [bags] bool: a lookup raised the flag."""

    sums: np.ndarray
    not_finite: np.ndarray
    overflow: np.ndarray

    @property
    def bad(self) -> np.ndarray:
        """[bags] bool: the device fails the sample this bag is in."""
        return self.not_finite | self.overflow


def decode_rows(raw: np.ndarray, format: RowFormat, dim: int) -> Rows:
    """Rows as stored, uint8 [n, at least row_bytes] (padding ignored), to :class:`Rows`."""
    size = RowFormat(format).row_bytes(dim)
    if raw.dtype != np.uint8 or raw.ndim != 2 or raw.shape[1] < size:
        raise DataError("raw", (raw.dtype, raw.shape), f"must be uint8 [rows, at least {size}]")
    body = np.ascontiguousarray(raw[:, :size])
    if format == RowFormat.FP32:
        return Rows(RowFormat.FP32, body.view("<f4"))
    if format == RowFormat.FP16:
        return Rows(RowFormat.FP16, body.view("<f2"))
    tail = np.ascontiguousarray(body[:, dim:]).view("<f4")
    return Rows(RowFormat.INT8, body[:, :dim], tail[:, 0], tail[:, 1])


def _round(exact: np.ndarray, lsb_exp: int, limit_exp: int) -> tuple[np.ndarray, np.ndarray]:
    """(RNE(exact * 2**-lsb_exp) as int64, overflow flags); non-finite and overflowing entries give 0.

    Exact: the operand has at most 53 significant bits, and its exponent (at least -298 - 127) is well inside float64's.
    """
    c = np.rint(np.ldexp(exact, -lsb_exp))
    finite = np.isfinite(exact)
    overflow = finite & ~(np.abs(c) < 2.0**limit_exp)
    return np.where(finite & ~overflow, c, 0.0).astype(np.int64), overflow


def contributions(rows: Rows, spec: TableSpec, acc_bits: int, weights: np.ndarray | None = None
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 [n, dim] contributions, not_finite [n], overflow [n]) of decoded rows; ``weights`` [n] float32 or None."""
    n = len(rows.values)
    w = np.ones(n) if weights is None else np.asarray(weights, np.float32).astype(np.float64)
    limit = acc_bits - 1 - spec.headroom
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if rows.format != RowFormat.INT8:
            # 24 x 24 bits: the product is exact in float64.
            exact = rows.values.astype(np.float64)
            if weights is not None:
                exact = exact * w[:, None]
            c, overflow = _round(exact, spec.lsb_exp, limit)
            return c, ~np.isfinite(w) | ~np.isfinite(rows.values).all(axis=1), overflow.any(axis=1)
        assert rows.scale is not None
        assert rows.bias is not None
        scale, bias = rows.scale.astype(np.float64), rows.bias.astype(np.float64)
        not_finite = ~(np.isfinite(w) & np.isfinite(scale) & np.isfinite(bias))
        ws, wb = round24(w * scale), round24(w * bias)
        a, over_a = _round(ws[:, None] * rows.values, spec.lsb_exp, limit - 1)
        b, over_b = _round(wb, spec.lsb_exp, limit - 1)
        return a + b[:, None], not_finite, over_a.any(axis=1) | over_b


def pool_bags(spec: TableSpec, acc_bits: int, raw_rows: np.ndarray, lengths: np.ndarray,
              weights: np.ndarray | None = None) -> tuple[np.ndarray, PoolInfo]:
    """Pool consecutive rows into bags.

    ``raw_rows`` uint8 [lookups, at least row_bytes]: the looked-up rows as stored, bag after bag; ``lengths`` [bags];
    ``weights`` float32 [lookups] or None. Returns (fp32 [bags, dim], :class:`PoolInfo`); NaN in flagged bags.
    """
    lengths = np.asarray(lengths, np.int64)
    if lengths.sum() != len(raw_rows):
        raise DataError("lengths", int(lengths.sum()), f"must add up to the {len(raw_rows)} rows given")
    if lengths.size and lengths.max() > 1 << spec.headroom:
        raise DataError("lengths", int(lengths.max()), f"a bag holds at most 2**headroom = {1 << spec.headroom} lookups")
    bags = len(lengths)
    sums = np.zeros((bags, spec.dim), np.int64)
    flags = np.zeros((2, bags), bool)
    bag_of = np.repeat(np.arange(bags), lengths)
    step = max(1, CHUNK_ELEMENTS // spec.dim)
    for lo in range(0, len(raw_rows), step):
        hi = min(lo + step, len(raw_rows))
        c, not_finite, overflow = contributions(decode_rows(raw_rows[lo:hi], spec.format, spec.dim), spec, acc_bits,
                                                None if weights is None else weights[lo:hi])
        ids = bag_of[lo:hi]
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        # Integer addition: exact in any order and across chunks. A bag appears once in ids[starts].
        sums[ids[starts]] += np.add.reduceat(c, starts, axis=0)
        flags[0, ids[starts]] |= np.logical_or.reduceat(not_finite, starts)
        flags[1, ids[starts]] |= np.logical_or.reduceat(overflow, starts)
    if spec.mode == PoolMode.MEAN:
        out = ratio_to_fp32(sums, lengths[:, None], spec.lsb_exp)
    else:
        out = int_to_fp32(sums, spec.lsb_exp)
    info = PoolInfo(sums, flags[0], flags[1])
    out[info.bad] = np.nan
    return out, info


def choose_window(max_abs: float, max_bag: int, acc_bits: int, max_weight: float = 1.0,
                  format: RowFormat = RowFormat.FP32) -> tuple[int, int]:
    """(lsb_exp, headroom): the finest window in which no bag of ``max_bag`` lookups can overflow.

    ``max_abs``: largest ``|element|`` (INT8: the larger of ``|scale| * 255`` and ``|bias|`` over the rows); ``max_weight``:
    largest ``|weight|``. Raises :class:`DataError` when no window holds the range.
    """
    if not (math.isfinite(max_abs) and math.isfinite(max_weight)) or max_abs < 0 or max_weight < 0:
        raise DataError("max_abs", (max_abs, max_weight), "the largest element and weight must be finite")
    headroom = max(0, int(max_bag) - 1).bit_length()
    if headroom > 16:
        raise DataError("max_bag", max_bag, "must be at most 65536")
    limit = acc_bits - 1 - headroom
    x = Fraction(float(max_abs)) * Fraction(float(max_weight))
    if format == RowFormat.INT8:
        limit -= 1
        x *= 1 + Fraction(1, 1 << 24)  # RN24 may round the weighted scale up
    if x == 0:
        return -149, headroom
    log = x.numerator.bit_length() - x.denominator.bit_length()  # floor(log2 x) or that + 1
    lsb = max(LSB_MIN, log - 1 - limit)
    while round(x / Fraction(2) ** lsb) >= 1 << limit:
        lsb += 1
    if lsb > LSB_MAX:
        raise DataError("max_abs", max_abs, f"a window of {acc_bits} bits cannot hold bags of {max_bag} of these")
    return lsb, headroom


def is_exact(values: np.ndarray, lsb_exp: int) -> bool:
    """True when every finite value is a whole number of window units, so that no contribution is rounded."""
    v = np.asarray(values, np.float64)
    scaled = np.ldexp(v[np.isfinite(v)], -lsb_exp)
    return bool((scaled == np.rint(scaled)).all())


def error_bound(spec: TableSpec, lookups: int, result: float, weighted_abs: float = 0.0) -> float:
    """Largest ``|result - exact value|`` of a pooled element that raised no flag.

    ``lookups``: its bag's length; ``result``: the fp32 value returned; ``weighted_abs``: for a weighted INT8 table the
    sum over the bag of ``|weight * scale * q| + |weight * bias|``, otherwise 0.
    """
    parts = 2 if spec.format == RowFormat.INT8 else 1
    window = lookups * parts * 2.0 ** (spec.lsb_exp - 1) + weighted_abs * 2.0**-24
    if spec.mode == PoolMode.MEAN:
        window /= max(1, lookups)
    # Half a unit in the last place: 2**-24 of the result's binade, 2**-150 for subnormals.
    half_ulp = math.ldexp(1.0, max(math.frexp(result)[1] - 25, -150))
    return window + half_ulp
