"""Gamma-MAP filter: maximum a posteriori under a Gamma-distributed scene and Gamma speckle, in three classes.

Source: A. Lopes, E. Nezry, R. Touzi, H. Laur, "Maximum a posteriori speckle filtering and first order texture models in SAR
images", IGARSS 1990.
"""

from __future__ import annotations

import math

import numpy as np

from .local import TINY, as_float32, check, local_moments, speckle_variance

__all__ = ["gamma_map"]


def gamma_map(intensity: np.ndarray, looks: float, size: int = 7) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks in windows of ``size`` x ``size``; float32 [H, W] > 0.

    By the local coefficient of variation Cz, with Cu = 1/sqrt(L) and Cmax = sqrt(2) Cu:

    * Cz <= Cu, homogeneous: the local mean m;
    * Cz >= Cmax, a point target or edge: the pixel z itself;
    * between, texture: the positive root x of a x^2 + (1 + L - a) m x - L m z = 0, a = (1 + Cu^2) / (Cz^2 - Cu^2).

    Raises:
        DataError, ConfigError: not [H, W]; looks or size out of range.
    """
    z = check(intensity, looks, size)
    mean, var = local_moments(z, size)
    cu2 = speckle_variance(looks)
    cz2 = var / np.maximum(mean * mean, TINY)
    texture = (cz2 > cu2) & (cz2 < 2 * cu2)
    out = np.where(cz2 <= cu2, mean, z)
    m, zt = mean[texture], z[texture]
    # A texture barely above the speckle has an infinite order, of which 1e9 gives the same estimate
    a = np.minimum((1 + cu2) / np.maximum(cz2[texture] - cu2, TINY), 1e9)
    b = (a - looks - 1) * m
    root = np.sqrt(b * b + 4 * a * looks * m * zt)
    # Of the two forms of the root, the one that doesn't cancel
    out[texture] = np.where(b >= 0, (b + root) / (2 * a), 2 * looks * m * zt / np.maximum(root - b, math.ulp(0.0)))
    return as_float32(out)
