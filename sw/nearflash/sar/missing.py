"""Missing pixels, while a method runs that knows none."""

from __future__ import annotations

import numpy as np

__all__ = ["EVEN_RADIUS", "fill_missing", "interior_constants"]

EVEN_RADIUS = 3  # a pixel with no other value this near keeps its own


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


def interior_constants(intensity: np.ndarray) -> np.ndarray:
    """Where all within :data:`EVEN_RADIUS` pixels of a pixel of ``intensity`` [H, W] have its value, or none: bool [H, W].

    Speckle never does that: it is a zero border, a saturated area or fill, which a network would take for anything.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * EVEN_RADIUS + 1
    missing = np.isnan(intensity)
    # In floating point hardly any neighbours are equal, and the filters cost as much as a fast method
    if min(intensity.shape) >= size and not missing.any() and not (intensity[:, 1:] == intensity[:, :-1]).any():
        return np.zeros(intensity.shape, bool)
    highest = maximum_filter(np.where(missing, -np.inf, intensity), size=size, mode="nearest")
    lowest = minimum_filter(np.where(missing, np.inf, intensity), size=size, mode="nearest")
    return (highest == lowest) & ~missing
