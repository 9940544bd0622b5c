"""Single-precision conversions, bit for bit as the gateware does them (:mod:`nearflash_hw.primitives.float32`).

NumPy only. Steps go through float64 only where float64 is exact (products of at most 53 significant bits, scaling by
powers of two, rounding to an integer), so every result is the exact value rounded once, to nearest even.
"""

from __future__ import annotations

import numpy as np

__all__ = ["int_to_fp32", "quantize_fp32", "ratio_to_fp32", "round24"]


def quantize_fp32(x: np.ndarray, mult: int, shift: int, bits: int) -> np.ndarray:
    """``clamp(RNE(x * mult * 2**-shift))`` to ``+-(2**(bits - 1) - 1)``, int32, for float32 ``x`` of any shape.

    ``mult`` is below 2**16, ``shift`` from -128 to 127, ``bits`` from 2 to 24. NaN gives 0; an infinity clamps (0 if
    ``mult`` is 0).
    """
    if not 0 <= mult < 1 << 16 or not -128 <= shift <= 127 or not 2 <= bits <= 24:
        raise ValueError(f"mult = {mult}, shift = {shift}, bits = {bits}: must be below 65536, from -128 to 127, 2 to 24")
    limit = float((1 << (bits - 1)) - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        # 24 x 16 bits fit float64's 53, and the scaled result stays within its normal range: exact up to rint.
        y = np.rint(np.ldexp(np.asarray(x, np.float32).astype(np.float64) * float(mult), -shift))
        return np.where(np.isnan(y), 0.0, np.clip(y, -limit, limit)).astype(np.int32)


def _to_fp32(magnitude: np.ndarray, negative: np.ndarray, e: np.ndarray | int) -> np.ndarray:
    """(-1)**negative * magnitude (uint64) * 2**e as float32, RNE; zero is +0.0."""
    # float64 takes 53 bits; the rest is kept as a sticky bit ("round to odd"), which makes the final rounding, to
    # 24 bits or fewer, that of the exact value.
    wide = magnitude >= np.uint64(1 << 53)
    low = (magnitude & np.uint64(0x7FF)) != 0
    m = np.where(wide, (magnitude >> np.uint64(11)) | low, magnitude)
    v = np.ldexp(m.astype(np.float64), np.where(wide, 11, 0) + e)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(negative & (magnitude != 0), -v, v).astype(np.float32)


def _split(i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i = np.asarray(i, np.int64)
    negative = i < 0
    u = i.astype(np.uint64)
    return np.where(negative, ~u + np.uint64(1), u), negative


def int_to_fp32(i: np.ndarray, e: np.ndarray | int) -> np.ndarray:
    """``i * 2**e`` (int64 ``i``, -600 <= e <= 600) as float32, rounded once to nearest even.

    Exact through subnormal results; overflow gives infinity; zero is +0.0; a negative value that rounds to zero is -0.0.
    """
    magnitude, negative = _split(i)
    return _to_fp32(magnitude, negative, e)


def ratio_to_fp32(i: np.ndarray, count: np.ndarray, e: int) -> np.ndarray:
    """``i / count * 2**e`` (int64 ``i``, 0 <= count < 65536) as float32, the exact quotient rounded once; 0/0 is +0.0."""
    magnitude, negative = _split(i)
    d = np.maximum(np.asarray(count, np.int64), 1).astype(np.uint64)
    d, magnitude, negative = np.broadcast_arrays(d, magnitude, negative)
    whole, rest = np.divmod(magnitude, d)
    fraction, rest2 = np.divmod(rest << np.uint64(46), d)
    # At least 30 significant bits in every case, and everything below them in the sticky bit.
    small, medium = whole < np.uint64(1 << 16), whole < np.uint64(1 << 40)
    bits = np.where(small, 46, np.where(medium, 22, 0))
    m = np.where(small, (whole << np.uint64(46)) | fraction,
                 np.where(medium, (whole << np.uint64(22)) | (fraction >> np.uint64(24)), whole))
    lost = np.where(small, False, np.where(medium, (fraction & np.uint64(0xFFFFFF)) != 0, fraction != 0)) | (rest2 != 0)
    out = _to_fp32(m | lost.astype(np.uint64), negative, e - bits)
    return np.where(np.asarray(count) == 0, np.float32(0), out)


def round24(x: np.ndarray) -> np.ndarray:
    """float64 rounded to a 24-bit significand, to nearest even, exponent unbounded (as if float32 had no range)."""
    m, e = np.frexp(x)
    return np.ldexp(np.rint(m * (1 << 24)), e - 24)
