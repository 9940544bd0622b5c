"""Real factors as the integers the requantiser takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ..contract.errors import ModelError

__all__ = ["quantise_weights", "rescaling", "rescalings", "table_codes"]


def rescaling(factor: float, name: str) -> tuple[int, int]:
    """(mult, shift): mult * 2**-shift is ``factor`` within 2**-16 of it; mult has its bit 15 set unless factor < 2**-47.

    Raises:
        ModelError: ``factor`` of 2**16 or more, or not above 0.
    """
    if not 0 < factor < 1 << 16:
        raise ModelError(f"{name}.factor", factor, "must be above 0 and below 2**16")
    shift = min(62, 15 - math.floor(math.log2(factor)))
    mult = round(factor * 2.0**shift)
    return (1 << 15, shift - 1) if mult == 1 << 16 and shift else (min(mult, 65535), shift)


def rescalings(factors: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """:func:`rescaling` of each."""
    pairs = np.array([rescaling(float(f), name) for f in factors], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def quantise_weights(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 codes, scale per channel of ``axis``): symmetric, the largest weight of a channel is 127, halves to even as
    torch rounds. A channel of zeros has the scale 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(others)
    scale = np.where(largest > 0, largest / 127, 1.0)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.rint(weight / scale.reshape(shape)).clip(-127, 127).astype(np.int8), scale


def table_codes(function: Callable[[torch.Tensor], torch.Tensor], before: float, after: float) -> np.ndarray:
    """int8 [256], by q + 128: the code nearest to ``function`` of q ``before``, in steps of ``after``; -127 to 127."""
    real = function(torch.arange(-128, 128, dtype=torch.float64) * before).numpy()
    return np.rint(real / after).clip(-127, 127).astype(np.int8)
