"""Softmax attention in integers: a table of 256 exponentials, normalised after the sum over the values."""

from __future__ import annotations

import numpy as np

from ..requantize import requantize
from .epilogue import SUM_BITS, Scale

__all__ = ["EXP2", "EXP_ONE", "LOG_BITS", "attention", "exponentials", "reciprocal"]

EXP_ONE = 127 << 8  # the largest exponential: two signed digits of 8 bits for the array
LOG_FRACTION = 8
LOG_BITS = 13  # signed width of the saturated logarithm: up to 4095, 16 octaves

#: 2**-f for f in 1/256, times :data:`EXP_ONE`.
EXP2 = np.round(EXP_ONE * np.exp2(-np.arange(256) / 256)).astype(np.int64)
TOKENS = 4096  # of the matrix of scores made at a time


def exponentials(u: np.ndarray) -> np.ndarray:
    """``2**(-u / 256)`` times :data:`EXP_ONE`, int64, of u from 0 to 4095."""
    n = u >> LOG_FRACTION
    return (EXP2[u & 255] + (np.left_shift(1, n) >> 1)) >> n


def reciprocal(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(r, m): ``r * 2**-(15 + m)`` is about 1 / total; m is total's length in bits, r at most 2**16 - 1."""
    m = np.frexp(total.astype(np.float64))[1].astype(np.int64)
    return np.minimum(np.left_shift(1, 15 + m) // total, 65535), m


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, score: Scale, value: Scale, low: int, high: int
              ) -> np.ndarray:
    """Codes int8 [T, C] of ``softmax(q k^T) v`` per head: q [T, C], k and v [keys, C], int8 codes with zero 0.

    ``score``: scores to logarithms of base 2 with 8 bits below the point. ``value``: v's scale over the output's, a
    multiplier of 16 bits (the highest one set) and a shift that ends one bit short: ``mult * 2**-(shift + 1)``.
    """
    tokens, c = q.shape
    d = c // heads
    out = np.empty((tokens, c), np.int8)
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        kt, vh = k[:, part].T.astype(np.float64), v[:, part].astype(np.float64)  # exact: sums below 2**53
        for t in range(0, tokens, TOKENS):
            s = (q[t : t + TOKENS, part].astype(np.float64) @ kt).astype(np.int64)
            below = s.max(1, keepdims=True) - s
            e = exponentials(score.apply(below, LOG_BITS))
            r, m = reciprocal(e.sum(1, keepdims=True))
            acc = (e.astype(np.float64) @ vh).astype(np.int64)
            y = requantize(acc, (r * value.mult) >> 16, m + value.shift, SUM_BITS)
            out[t : t + TOKENS, part] = np.clip(y, low, high)
    return out
