"""Filters for additive Gaussian noise on the logarithm of intensity: its speckle has one variance everywhere.

For z = x n with n ~ Gamma(L, 1/L): ln z has mean ln x + psi(L) - ln L (digamma) and variance psi'(L) (trigamma).
The first is subtracted; without it every output would be low by 2.5 dB at one look.

Source of the moments: H. Xie et al., "Statistical properties of logarithmically transformed speckle", IEEE Trans. Geoscience
and Remote Sensing 40(3), 2002.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import digamma, polygamma

from .local import TINY, as_float32, check, local_mean

__all__ = ["filter_log"]

FLOOR = 1e-3  # of the local mean: at one look 0.1 % of the pixels lie below, and raising them moves the mean log by 0.001


def filter_log(intensity: np.ndarray, looks: float, denoise: Callable[[np.ndarray, float], np.ndarray],
               least: int = 1) -> np.ndarray:
    """``exp(denoise(debiased ln intensity [H, W] float64, sigma of the noise))`` as float32 [H, W] > 0.

    ``least``: images smaller than this are mirrored up to it. Intensities below 0.001 of the mean around them (zeros of
    8-bit files) are raised to that: their logarithm would be an outlier that no Gaussian denoiser expects.

    Raises:
        DataError, ConfigError: not [H, W]; looks out of range.
    """
    z = check(intensity, looks, 1)
    floor = np.maximum(FLOOR * local_mean(z, 7), TINY)
    log = np.log(np.maximum(z, floor)) - (float(digamma(looks)) - math.log(looks))
    h, w = log.shape
    log = np.pad(log, ((0, max(0, least - h)), (0, max(0, least - w))), mode="symmetric")
    out = denoise(log, math.sqrt(float(polygamma(1, looks))))
    return as_float32(np.exp(np.clip(out[:h, :w], -87, 88)))  # the range of float32
