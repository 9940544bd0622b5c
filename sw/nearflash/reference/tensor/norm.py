"""LayerNorm in integers: exact mean and variance, a root and a reciprocal defined by their floors."""

from __future__ import annotations

import numpy as np

from ..requantize import requantize
from .epilogue import half

__all__ = ["Z_FRACTION", "layer_norm", "reciprocal_root"]

Z_BITS, Z_FRACTION = 16, 10  # of a normalised value
MANTISSA_BITS = 24


def reciprocal_root(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recip, k): ``recip * 2**-(27 + k / 2)`` is about 1 / sqrt(v), v int64 from 1 to 2**53; recip has 16 bits, k is even.

    The mantissa m = floor(v / 2**k) lies in [2**22, 2**24); root = floor(sqrt(m * 2**8)); recip = floor(2**31 / root), at
    most 2**16 - 1.
    """
    v = np.asarray(v, np.int64)
    length = np.frexp(v.astype(np.float64))[1].astype(np.int64)  # of v in bits, exact up to 2**53
    k = (length - (MANTISSA_BITS - 1)) & ~1
    m = np.where(k > 0, v >> np.maximum(k, 0), v << np.maximum(-k, 0))
    root = np.sqrt((m << 8).astype(np.float64)).astype(np.int64)  # exact: 32 bits don't round up to an integer
    return np.minimum((1 << 31) // root, 65535), k


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, shift: np.ndarray, eps: int, low: int, high: int
               ) -> np.ndarray:
    """Codes int8 of ``x`` [..., C] (int8 or int16 codes), normalised over C.

    ``gain`` (16 bits), ``bias`` and ``shift`` [C]: ``y = clamp((z * gain + bias + half(shift)) >> shift)`` with z the
    deviation over the standard deviation, 10 bits below the point. ``eps``: in units of C**2 times the variance of codes,
    at least 1.
    """
    x = np.asarray(x, np.int64)
    c = x.shape[-1]
    total = x.sum(-1, keepdims=True)
    spread = c * (x * x).sum(-1, keepdims=True) - total * total + eps
    recip, k = reciprocal_root(spread)
    z = requantize(c * x - total, recip, 27 - Z_FRACTION + k // 2, Z_BITS)
    y = (z * np.asarray(gain, np.int64) + bias + half(shift)) >> np.asarray(shift, np.int64)
    return np.clip(y, low, high).astype(np.int8)
