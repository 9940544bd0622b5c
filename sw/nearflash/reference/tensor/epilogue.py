"""From accumulators to codes: one definition for every operator that has none of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..requantize import requantize

__all__ = ["SUM_BITS", "Scale", "epilogue", "half"]

SUM_BITS = 24  # of either term of a sum


def half(bits: np.ndarray | int) -> np.ndarray:
    """2**(bits - 1), 0 for no bits: added before ``bits`` are shifted out, it rounds halves up."""
    return (np.int64(1) << np.asarray(bits, np.int64)) >> 1


@dataclass(frozen=True)
class Scale:
    """Multiplier (0 to 2**16 - 1) and shift (0 to 62) of a requantisation; of arrays, one per channel."""

    mult: np.ndarray | int
    shift: np.ndarray | int

    def apply(self, values: np.ndarray, bits: int) -> np.ndarray:
        return requantize(np.asarray(values, np.int64), self.mult, self.shift, bits)


def epilogue(acc: np.ndarray, scale: Scale, low: int, high: int, *, bias: np.ndarray | int = 0,
             residual: np.ndarray | None = None, residual_scale: Scale | None = None, offset: int = 0, frac: int = 0,
             table: np.ndarray | None = None) -> np.ndarray:
    """Codes of ``acc`` [..., C]: int8 where low and high fit it, else int16.

    ``clamp((requantize(acc + bias) + requantize(residual) + offset + half(frac)) >> frac, low, high)``, both terms of 24
    bits, then ``table[y + 128]``. ``scale`` and ``bias`` broadcast over the channels.
    """
    y = scale.apply(np.asarray(acc, np.int64) + bias, SUM_BITS)
    if residual is not None:
        assert residual_scale is not None
        y += residual_scale.apply(residual, SUM_BITS)
    if frac or offset:
        y = (y + (offset + half(frac))) >> frac
    y = np.clip(y, low, high).astype(np.int8 if max(-low, high) <= 127 else np.int16)
    return y if table is None else table[y.astype(np.int64) + 128]
