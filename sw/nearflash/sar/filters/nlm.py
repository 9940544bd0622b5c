"""Homomorphic non-local means, through scikit-image.

Source: A. Buades, B. Coll, J.-M. Morel, "A non-local algorithm for image denoising", CVPR 2005.
"""

from __future__ import annotations

import math

import numpy as np

from ...contract.errors import ConfigError
from .homomorphic import filter_log

__all__ = ["nlm"]


def nlm(intensity: np.ndarray, looks: float, patch_size: int = 7, patch_distance: int = 10, h: float = 0.5) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks; float32 [H, W] > 0.

    scikit-image's fast ``denoise_nl_means`` on the debiased logarithm, see :mod:`.homomorphic`: a mean over the pixels
    within ``patch_distance``, weighted by exp(-max(0, d^2 - 2 sigma^2) / (h sigma)^2) with d^2 the mean squared difference
    of the patches of ``patch_size`` x ``patch_size`` around them and sigma^2 the variance of log speckle. Expects white
    speckle: patterns of correlated speckle look like structure to it and stay, raised by the debiasing.

    Raises:
        DataError, ConfigError: not [H, W]; looks, patch_size, patch_distance or h out of range.
    """
    from skimage.restoration import denoise_nl_means

    for field, value in (("patch_size", patch_size), ("patch_distance", patch_distance)):
        if value < 1:
            raise ConfigError(field, value, "must be at least 1")
    if not (math.isfinite(h) and h > 0):
        raise ConfigError("h", h, "must be a finite number > 0")
    return filter_log(intensity, looks, lambda log, sigma: denoise_nl_means(
        log, patch_size, patch_distance, h * sigma, fast_mode=True, sigma=sigma), least=16)
