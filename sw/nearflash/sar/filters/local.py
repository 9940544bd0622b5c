"""What the classical filters share: checks, local moments and the speckle's coefficient of variation."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ...contract.errors import ConfigError, DataError

__all__ = ["TINY", "as_float32", "check", "local_mean", "local_moments", "speckle_variance"]

TINY = float(np.finfo(np.float32).tiny)  # the least output: intensity stays strictly positive


def check(intensity: np.ndarray, looks: float, size: int) -> np.ndarray:
    """``intensity`` [H, W] as float64. Raises DataError for another shape, ConfigError for impossible parameters."""
    if np.ndim(intensity) != 2 or 0 in np.shape(intensity):
        raise DataError("intensity.shape", np.shape(intensity), "must be [H, W] with at least one pixel")
    if not (math.isfinite(looks) and looks > 0):
        raise ConfigError("looks", looks, "must be a finite number > 0")
    if size < 1 or size % 2 == 0:
        raise ConfigError("size", size, "must be an odd number >= 1")
    return np.asarray(intensity, np.float64)


def as_float32(intensity: np.ndarray) -> np.ndarray:
    """float32, strictly positive and finite."""
    return np.clip(intensity, TINY, np.finfo(np.float32).max).astype(np.float32)


def local_mean(image: np.ndarray, size: int) -> np.ndarray:
    """Mean over ``size`` x ``size`` pixels around each, the borders mirrored.

    Not ``uniform_filter``: that keeps a running sum along each line, in which one bright target leaves a rounding error on
    every pixel behind it, larger than the variance of a dark area.
    """
    weights = np.full(size, 1 / size)
    return ndimage.correlate1d(ndimage.correlate1d(image, weights, 0, mode="reflect"), weights, 1, mode="reflect")


def local_moments(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance over ``size`` x ``size`` pixels around each, the borders mirrored."""
    mean = local_mean(image, size)
    return mean, np.maximum(local_mean(image * image, size) - mean * mean, 0)


def speckle_variance(looks: float) -> float:
    """Cu^2, the squared coefficient of variation of intensity speckle: 1/L."""
    return 1 / looks
