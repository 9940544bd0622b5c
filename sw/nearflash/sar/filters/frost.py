"""Frost filter: exponentially weighted mean whose reach shrinks where the scene varies.

Source: V. S. Frost et al., "A model for radar images and its application to adaptive digital filtering of multiplicative
noise", IEEE Trans. Pattern Analysis and Machine Intelligence 4(2), 1982.
"""

from __future__ import annotations

import math

import numpy as np

from ...contract.errors import ConfigError
from .local import TINY, as_float32, check, local_moments

__all__ = ["frost"]


def frost(intensity: np.ndarray, looks: float, size: int = 7, damping: float = 0.5) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 in windows of ``size`` x ``size``; float32 [H, W] > 0.

    Weights exp(-a d) at Euclidean distance d, with a = damping * L * Cz^2 and Cz the local coefficient of variation:
    L Cz^2 is 1 in pure speckle of any number of looks, so that one ``damping`` serves all. (Programs that know no looks take
    a = K Cz^2: their K is L times this damping.)

    Raises:
        DataError, ConfigError: not [H, W]; looks, size or damping out of range.
    """
    z = check(intensity, looks, size)
    if not (math.isfinite(damping) and damping > 0):
        raise ConfigError("damping", damping, "must be a finite number > 0")
    mean, var = local_moments(z, size)
    alpha = damping * looks * var / np.maximum(mean * mean, TINY)

    # Pixels at one distance share a weight: sum them first, so that one exponential serves the whole ring
    r = size // 2
    rings: dict[int, list[tuple[int, int]]] = {}
    for i in range(-r, r + 1):
        for j in range(-r, r + 1):
            rings.setdefault(i * i + j * j, []).append((i, j))
    padded = np.pad(z, r, mode="symmetric")
    h, w = z.shape
    total, weights = np.zeros_like(z), np.zeros_like(z)
    for d2, members in rings.items():
        weight = np.exp(-alpha * math.sqrt(d2))
        total += weight * sum(padded[r + i : r + i + h, r + j : r + j + w] for i, j in members)
        weights += weight * len(members)
    return as_float32(total / weights)
