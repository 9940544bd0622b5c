"""Kuan filter: local linear MMSE under the multiplicative model, without Lee's linearisation.

Source: D. T. Kuan et al., "Adaptive noise smoothing filter for images with signal-dependent noise", IEEE Trans. Pattern
Analysis and Machine Intelligence 7(2), 1985.
"""

from __future__ import annotations

import numpy as np

from .local import TINY, as_float32, check, local_moments, speckle_variance

__all__ = ["kuan"]


def kuan(intensity: np.ndarray, looks: float, size: int = 7) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks in windows of ``size`` x ``size``; float32 [H, W] > 0.

    m + k (z - m), k = (1 - Cu^2 / Cz^2) / (1 + Cu^2), not below 0, with Cz the local coefficient of variation and
    Cu^2 = 1/L.

    Raises:
        DataError, ConfigError: not [H, W]; looks or size out of range.
    """
    z = check(intensity, looks, size)
    mean, var = local_moments(z, size)
    cu2 = speckle_variance(looks)
    k = np.maximum(1 - cu2 * mean * mean / np.maximum(var, TINY), 0) / (1 + cu2)
    return as_float32(mean + k * (z - mean))
