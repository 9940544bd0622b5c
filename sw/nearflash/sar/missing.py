"""Missing pixels, while a method runs that knows none."""

from __future__ import annotations

import numpy as np

__all__ = ["fill_missing", "interior_zeros"]

ZERO_RADIUS = 3  # a pixel of intensity 0 with nothing else this near stays 0


def fill_missing(intensity: np.ndarray) -> np.ndarray:
    """``intensity`` [H, W] with each NaN replaced by the valid pixel mirrored at the nearest valid one, or by that one.

    The fill has the speckle of the land beside it: a smooth fill would look like a homogeneous area to a filter, and a
    constant like an edge. At least one pixel must be valid.
    """
    from scipy.ndimage import distance_transform_edt

    missing = np.isnan(intensity)
    if not missing.any():
        return intensity
    rows, columns = distance_transform_edt(missing, return_distances=False, return_indices=True)  # type: ignore[misc]
    height, width = intensity.shape
    row, column = np.nonzero(missing)
    near_row, near_column = rows[row, column], columns[row, column]
    mirrored = intensity[np.clip(2 * near_row - row, 0, height - 1), np.clip(2 * near_column - column, 0, width - 1)]
    filled = intensity.copy()
    filled[row, column] = np.where(np.isnan(mirrored), intensity[near_row, near_column], mirrored)
    return filled


def interior_zeros(intensity: np.ndarray) -> np.ndarray:
    """Where ``intensity`` [H, W] is 0 and so is all within :data:`ZERO_RADIUS` pixels (NaN counts as 0): bool [H, W]."""
    from scipy.ndimage import maximum_filter

    positive = intensity > 0
    if positive.all():
        return np.zeros(intensity.shape, bool)
    return (intensity == 0) & (maximum_filter(positive, size=2 * ZERO_RADIUS + 1, mode="nearest") == 0)
