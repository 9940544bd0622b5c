"""Borders that a product fills with zeros, and the noise that older Sentinel-1 products leave along them.

They are looked for along rows, from either end: ground range products are sheared, so their borders cut every row, and a
row of zeros alone is border from end to end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Border", "find_border"]

SHORTEST = 8  # pixels of 0 in a row: single-look land stored in 8 bits, a third of it 0, has so many once in 15,000 rows
SHARE = 0.1  # of the sampled rows that must have a border at their ends, where no row is all border
DARK = 0.01  # of the median intensity: border noise is below, 20 dB under the land; calm water seldom is
AHEAD = 16  # pixels whose mean is compared with that
WIDEST_NOISE = 500  # pixels beyond the zeros


@dataclass(frozen=True)
class Border:
    """``dark``: intensity below which a pixel beside the zeros is noise; ``share``: of the sampled pixels in the border;
    ``noise``: whether there was any beside the zeros."""

    dark: float
    share: float
    noise: bool

    def mask(self, intensity: np.ndarray) -> np.ndarray:
        """Where rows of intensity [rows, W] (NaN missing) are border, bool of their shape."""
        return _from_left(intensity, self.dark) | _from_left(intensity[:, ::-1], self.dark)[:, ::-1]


def find_border(bands: Iterable[np.ndarray], median: float) -> Border | None:
    """The border of a scene of which ``bands`` are some whole rows, intensity [rows, W] (NaN missing), or None.

    ``median``: of its intensities above 0."""
    border, zeros_alone = Border(DARK * median, 0.0, False), Border(0.0, 0.0, False)
    rows = bordered = whole = pixels = masked = zeros = 0
    for band in bands:
        zero = zeros_alone.mask(band)
        rows, bordered, whole = rows + len(band), bordered + int(zero.any(axis=1).sum()), whole + int(zero.all(axis=1).sum())
        there = ~np.isnan(band)
        pixels, zeros = pixels + band.size, zeros + int((zero & there).sum())
        masked += int((border.mask(band) & there).sum())
    if not whole and bordered <= SHARE * rows:
        return None
    return Border(border.dark, masked / pixels, masked > 1.001 * zeros)


def _from_left(intensity: np.ndarray, dark: float) -> np.ndarray:
    columns = intensity.shape[1]
    run = _leading(~(intensity > 0))  # missing pixels belong to the border they lie in
    zeros = ((intensity == 0) & (np.arange(columns) < run[:, None])).sum(axis=1)
    bordered = zeros >= min(SHORTEST, columns)
    if not bordered.any():
        return np.zeros(intensity.shape, bool)
    if dark > 0 and columns > AHEAD:
        known = np.nan_to_num(intensity[bordered], nan=0.0).astype(np.float64)
        sums = np.cumsum(np.pad(known, ((0, 0), (1, AHEAD)), mode="edge"), axis=1)
        ahead = (sums[:, AHEAD:] - sums[:, :-AHEAD])[:, :columns] / AHEAD
        coarse = _leading(ahead < dark)
        # The mean ahead sees the land before it begins: the rest pixel by pixel
        place = np.arange(columns)
        fine = _leading((known < dark) | (place < coarse[:, None]))
        run[bordered] = np.clip(fine, run[bordered], run[bordered] + WIDEST_NOISE)
    return (np.arange(columns) < run[:, None]) & bordered[:, None]


def _leading(condition: np.ndarray) -> np.ndarray:
    """How many elements of each row of ``condition`` [rows, W] are true before the first that isn't: int [rows]."""
    return np.where(condition.all(axis=1), condition.shape[1], np.argmin(condition, axis=1))
