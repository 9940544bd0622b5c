"""Real scale factors as the integers the device multiplies by."""

from __future__ import annotations

import math

from ..contract import ModelError
from ..contract.program import MULT_BITS, SHIFT_MAX

__all__ = ["multiplier"]


def multiplier(ratio: float, name: str, *, low: int = 0, high: int = SHIFT_MAX) -> tuple[int, int]:
    """(mult, shift) with mult * 2**-shift nearest to ``ratio`` > 0, mult below 2**16 and ``low`` <= shift <= ``high``.

    Relative error at most 2**-16 unless ``high`` forces a short multiplier. Raises :class:`ModelError` when the ratio
    is too large or not a number.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise ModelError(name, ratio, "a scale ratio must be positive and finite")
    top = 1 << MULT_BITS
    shift = min(high, MULT_BITS - math.frexp(ratio)[1])
    mult = round(math.ldexp(ratio, shift))
    if mult == top:
        mult, shift = top >> 1, shift - 1
    if shift < low:
        raise ModelError(name, ratio, f"must be below 2**{MULT_BITS - low} to be a {MULT_BITS}-bit multiplier")
    return mult, shift
