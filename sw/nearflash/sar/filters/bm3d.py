"""Homomorphic BM3D, through the package of its authors (``pip install bm3d``: free for non-commercial use only).

Source: K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, "Image denoising by sparse 3-D transform-domain collaborative
filtering", IEEE Trans. Image Processing 16(8), 2007; Y. Mäkinen, L. Azzari, A. Foi, "Collaborative filtering of correlated
noise", IEEE Trans. Image Processing 29, 2020.
"""

from __future__ import annotations

import numpy as np

from ...contract.errors import ConfigError
from .homomorphic import filter_log

__all__ = ["bm3d"]

LEVEL = 20  # standard deviations of log speckle between 0 and the mean of what BM3D sees


def bm3d(intensity: np.ndarray, looks: float, threads: int = 1) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks; float32 [H, W] > 0.

    BM3D with its normal profile on the debiased logarithm, see :mod:`.homomorphic`. With more than one of ``threads`` (0:
    all cores) the order of its sums changes from call to call, and with it the last bits.

    Raises:
        DataError, ConfigError: not [H, W]; looks out of range; the package ``bm3d`` is not installed.
    """
    try:
        import bm3d as package
    except ImportError as e:
        raise ConfigError("method", "bm3d", "needs the package bm3d: pip install bm3d (non-commercial use only)") from e
    profile = package.BM3DProfile()
    profile.num_threads = threads

    def denoise(log: np.ndarray, sigma: float) -> np.ndarray:
        # BM3D shrinks a block's mean like any coefficient: far from 0 it stays, and the unit of intensity doesn't matter
        shift = LEVEL * sigma - log.mean()
        return np.asarray(package.bm3d(log + shift, sigma, profile)) - shift

    return filter_log(intensity, looks, denoise, least=16)
