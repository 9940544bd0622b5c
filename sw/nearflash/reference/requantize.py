"""The one definition of requantisation: 47-bit accumulator to activation, by a 16-bit multiplier and a right shift.

The gateware's :class:`nearflash_hw.engine.requantize.Requantizer` computes the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ACC_BITS", "requantize"]

ACC_BITS = 47  # signed width of an accumulator with its bias; times a 16-bit multiplier, plus a half, it fits 64 bits
MULT_BITS = 16
SHIFT_MAX = 62


def requantize(acc: Any, mult: Any, shift: Any, bits: int, relu: bool = False) -> Any:
    """clamp((acc * mult + half) >> shift, lo, hi): arithmetic shift, halves round up, ``half = 2**(shift-1)`` (0 at 0).

    ``acc`` (any shape, ``|acc| < 2**46``), ``mult`` (0 to 2**16 - 1) and ``shift`` (0 to 62) broadcast; all int64 NumPy
    arrays, torch tensors or Python ints. ``hi = 2**(bits-1) - 1``, ``lo = 0`` if ``relu`` else ``-hi`` (symmetric).
    """
    if isinstance(acc, int | list):
        acc = np.asarray(acc, np.int64)
    assert bool((abs(acc) < 1 << ACC_BITS - 1).all()), f"accumulator beyond {ACC_BITS} bits"
    one = acc * 0 + 1
    mult, shift = one * mult, one * shift
    assert bool(((mult >= 0) & (mult < 1 << MULT_BITS)).all()), f"multiplier beyond {MULT_BITS} bits"
    assert bool(((shift >= 0) & (shift <= SHIFT_MAX)).all()), f"shift beyond {SHIFT_MAX}"
    hi = (1 << bits - 1) - 1
    return ((acc * mult + ((one << shift) >> 1)) >> shift).clip(0 if relu else -hi, hi)
