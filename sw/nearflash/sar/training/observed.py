"""Training without clean images: two observations of the same ground whose speckle is independent.

- Of a complex image the real and the imaginary part: E. Dalsasso, L. Denis, F. Tupin, "As if by magic: self-supervised
  training of deep despeckling networks with MERLIN", TGRS 2022.
- Of co-registered images two dates: the same, "SAR2SAR: a semi-supervised despeckling algorithm for SAR images", JSTARS
  2021. There the slow changes from date to date are taken out by a network's estimate; here by the local means.

A network that sees the one and is scored by how likely it makes the other can't gain by following speckle.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from ...contract.errors import DataError
from ..statistics import MEDIAN_AMPLITUDE

__all__ = ["HALF_LOOK", "Observations", "scale_of", "scaled_intensity"]

HALF_LOOK = 0.5  # looks of the squared real part of a complex image alone (one degree of freedom of two)
CHANGE = 15  # pixels on a side of the means by which two dates are brought to the same brightness
SMALLEST = 64  # pixels on a side


class Observations:
    """Pairs of observations: ``pairs`` of (seen, scored), amplitudes float32 [H, W], and looks of the one that is seen.

    Args:
        images: complex [H, W] each.
        stacks: co-registered intensity [dates, H, W], at least two dates, and their looks.
        size: pixels on a side of the crops to come; smaller images are mirrored at their end.

    Raises:
        DataError: a wrong shape or kind, less than 64 pixels on a side, values that aren't finite, or no signal.
    """

    def __init__(self, images: list[np.ndarray], stacks: list[tuple[np.ndarray, float]], size: int) -> None:
        self.pairs: list[tuple[np.ndarray, np.ndarray, float]] = []
        for image in images:
            if image.ndim != 2 or image.dtype.kind != "c":
                raise DataError("self-supervised image", (image.shape, str(image.dtype)), "complex [H, W]")
            scale = scale_of(np.abs(image))
            for seen, scored in ((image.real, image.imag), (image.imag, image.real)):
                self._add(np.sqrt(2) * np.abs(seen) / scale, np.sqrt(2) * np.abs(scored) / scale, HALF_LOOK, size)
        for stack, looks in stacks:
            if stack.ndim != 3 or len(stack) < 2:
                raise DataError("self-supervised stack", stack.shape, "[dates, H, W] with at least two dates")
            for a, b in permutations(range(len(stack)), 2):
                seen, scored = np.sqrt(stack[a]), np.sqrt(stack[b] * _change(stack[a], stack[b]))
                scale = scale_of(seen)
                self._add(seen / scale, scored / scale, looks, size)

    def _add(self, seen: np.ndarray, scored: np.ndarray, looks: float, size: int) -> None:
        pads = [(0, max(0, size - n)) for n in seen.shape]
        a, b = (np.pad(x, pads, mode="symmetric").astype(np.float32) for x in (seen, scored))
        self.pairs.append((a, b, looks))

    def crop(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, float]:
        """A pair's same part ``[size, size]``, mirrored at random, as bright as scenes are; not turned: a system's
        response has its rows and columns."""
        seen, scored, looks = self.pairs[rng.integers(len(self.pairs))]
        row, column = (rng.integers(0, n - size + 1) for n in seen.shape)
        gain = np.float32(np.exp(rng.uniform(-0.5, 0.5)))
        down, right = rng.choice([-1, 1], 2)
        a, b = (x[row : row + size, column : column + size][::down, ::right] * gain for x in (seen, scored))
        return a, b, looks


def scaled_intensity(image: np.ndarray) -> np.ndarray:
    """Of a complex image [H, W], as bright as scenes are in training: float32 [H, W]. Raises as :func:`scale_of`."""
    amplitude = np.abs(image)
    return ((amplitude / scale_of(amplitude)) ** 2).astype(np.float32)


def scale_of(amplitude: np.ndarray) -> float:
    """By which to divide an amplitude [H, W], to be as bright as scenes are in training. Raises
    :class:`~nearflash.contract.errors.DataError` for one to which no scale can be found."""
    if min(amplitude.shape) < SMALLEST:
        raise DataError("self-supervised image", amplitude.shape, f"at least {SMALLEST} pixels on a side")
    if not np.isfinite(amplitude).all():
        raise DataError("self-supervised image", "NaN or infinite", "finite values: cut out a part without gaps")
    median = float(np.median(amplitude))
    if median <= 0:
        raise DataError("self-supervised image", "a median of 0", "an image whose pixels mostly hold a signal")
    return median / MEDIAN_AMPLITUDE


def _change(of: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Factor by which ``other`` is as bright as ``of`` over some neighbourhood."""
    from scipy.ndimage import uniform_filter

    means = [uniform_filter(x.astype(np.float64), CHANGE) for x in (of, other)]
    return means[0] / np.maximum(means[1], np.finfo(np.float32).tiny)
