"""Lee filter: local linear MMSE under the linearised multiplicative model.

Source: J.-S. Lee, "Digital image enhancement and noise filtering by use of local statistics", IEEE Trans. Pattern Analysis
and Machine Intelligence 2(2), 1980.
"""

from __future__ import annotations

import numpy as np

from .local import TINY, as_float32, check, local_moments, speckle_variance

__all__ = ["lee"]


def lee(intensity: np.ndarray, looks: float, size: int = 7) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks in windows of ``size`` x ``size``; float32 [H, W] > 0.

    With m and v the local mean and variance and Cu^2 = 1/L: the scene's variance is q = (v - m^2 Cu^2) / (1 + Cu^2), not
    below 0; z = x n is linearised about (m, 1) to m + (x - m) + m (n - 1), for which the MMSE estimate is
    m + k (z - m), k = q / (q + m^2 Cu^2).

    Raises:
        DataError, ConfigError: not [H, W]; looks or size out of range.
    """
    z = check(intensity, looks, size)
    mean, var = local_moments(z, size)
    cu2 = speckle_variance(looks)
    noise = mean * mean * cu2
    scene = np.maximum(var - noise, 0) / (1 + cu2)
    return as_float32(mean + scene / np.maximum(scene + noise, TINY) * (z - mean))
