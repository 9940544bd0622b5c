"""Simulated speckle: fully developed, white or spatially correlated, any number of looks, with point targets.

Model (Goodman; Oliver & Quegan, *Understanding SAR Images*, ch. 4): the image is complex circular Gaussian with the clean
intensity as variance, passed through the system's response; intensity is its squared magnitude, averaged over L independent
looks. Without correlation and point targets that is clean intensity times Gamma(L, 1/L), which is drawn directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from ..contract.errors import DataError

__all__ = ["SystemResponse", "speckled"]


@dataclass(frozen=True)
class SystemResponse:
    """The transfer function of one axis pair: a generalised Hamming window over part of the sampled band.

    Attributes:
        bandwidth: (rows, columns) share of the sampling frequency that passes, 0 < b <= 1; 1/b is the oversampling.
        taper: (rows, columns) coefficient of the window; 1 is rectangular, 0.54 Hamming.
    """

    bandwidth: tuple[float, float]
    taper: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for b in self.bandwidth:
            if not 0 < b <= 1:
                raise DataError("response.bandwidth", b, "above 0, at most 1")
        for t in self.taper:
            if not 0.5 <= t <= 1:
                raise DataError("response.taper", t, "0.5 to 1")

    def transfer(self, shape: tuple[int, int]) -> np.ndarray:
        """Amplitude transfer function on the FFT grid of ``shape``, of unit noise power gain, float32."""
        axes = []
        for n, b, t in zip(shape, self.bandwidth, self.taper, strict=True):
            f = np.abs(scipy.fft.fftfreq(n)) * 2 / b  # 1 at the edge of the passed band
            h = np.where(f <= 1, t + (1 - t) * np.cos(np.pi * f), 0.0)
            axes.append(h / np.sqrt(np.mean(h**2)))
        return np.outer(*axes).astype(np.float32)


def speckled(clean: np.ndarray, looks: float, rng: np.random.Generator, response: SystemResponse | None = None,
             targets: np.ndarray | None = None) -> np.ndarray:
    """A speckled intensity image.

    Args:
        clean: intensity of the clutter, float ``[H, W]``, >= 0.
        looks: L > 0; a whole number when ``response`` or ``targets`` is given.
        rng: consumed.
        response: the system's response; ``None``: white speckle.
        targets: complex ``[H, W]``, the deterministic echo of point targets, added to the clutter's.

    Returns:
        Intensity, float32 ``[H, W]``, of mean ``clean + |targets|**2``.

    Raises:
        DataError: looks out of range, or not whole where they must be.
    """
    if not (looks > 0 and np.isfinite(looks)):
        raise DataError("looks", looks, "a finite number above 0")
    if response is None and targets is None:
        return (clean * (rng.standard_gamma(looks, clean.shape, dtype=np.float32) / np.float32(looks))).astype(np.float32)
    if looks != int(looks):
        raise DataError("looks", looks, "a whole number, as a response or targets are given")
    height, width = clean.shape
    transfer = response.transfer((height, width)) if response is not None else None
    amplitude = np.sqrt(clean / 2).astype(np.float32)
    total = np.zeros(clean.shape, np.float32)
    for _ in range(int(looks)):
        z = rng.standard_normal((*clean.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        if transfer is not None:
            z = scipy.fft.ifft2(scipy.fft.fft2(z) * transfer)
        z = z * amplitude
        if targets is not None:
            z = z + targets
        total += z.real**2 + z.imag**2
    return total / np.float32(looks)
