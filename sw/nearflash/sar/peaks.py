"""Strong scatterers: which local maxima they are, and what of them a despeckler kept."""

from __future__ import annotations

import numpy as np

__all__ = ["peaks_kept", "strong_peaks"]

SURROUNDINGS, NEAR = 15, 5  # pixels on a side: of what a peak stands out of, and of what it is the highest in


def strong_peaks(intensity: np.ndarray, decibel: float = 15.0) -> np.ndarray:
    """Local maxima (of 5 x 5 pixels) at least ``decibel`` above the median of the 15 x 15 pixels around: bool [H, W]. Where
    that is 0, as in the dark of an 8-bit image, nothing says what stands out.

    ``intensity``: [H, W], finite, >= 0.
    """
    from scipy.ndimage import maximum_filter, median_filter

    surroundings = median_filter(intensity, SURROUNDINGS)
    highest = (intensity == maximum_filter(intensity, NEAR)) & (surroundings > 0)
    return highest & (intensity > 10 ** (decibel / 10) * surroundings)


def peaks_kept(before: np.ndarray, after: np.ndarray, decibel: float = 15.0) -> np.ndarray:
    """Intensity after over that before at every one of :func:`strong_peaks` of ``before``: float64 [peaks]."""
    at = strong_peaks(before, decibel)
    return after[at].astype(np.float64) / before[at]
