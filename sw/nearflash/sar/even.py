"""Statistics of even ground: the moments of small windows in which nothing but speckle varies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SIDE", "Moments", "even_moments"]

SIDE = 16  # pixels of a window
CELL = 4  # of the cells whose means show structure through the speckle
SHARE = 0.25  # of the windows with the least structure
MISSING = 0.25  # largest share of a window's pixels that may be missing
LEAST = 12  # windows, if there are that many


@dataclass(frozen=True)
class Moments:
    """Of the most even windows, float64 [windows] each: mean, standard deviation, skewness, and ``unevenness``, the spread
    of the means of cells over what white speckle would leave there (1; 1.3 at the usual oversampling, 2 on a map's grid)."""

    mean: np.ndarray
    deviation: np.ndarray
    skewness: np.ndarray
    unevenness: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)


def even_moments(images: list[np.ndarray]) -> Moments:
    """The moments of the most even windows of ``images`` (real [H, W], NaN missing), ranked by unevenness."""
    blocks = [b for b in map(_windows, images) if len(b)]
    windows = np.concatenate(blocks) if blocks else np.empty((0, SIDE, SIDE))
    mean, deviation = np.nanmean(windows, axis=(1, 2)), np.nanstd(windows, axis=(1, 2))
    # Rounding alone makes constant windows vary
    usable = deviation > 1e-6 * np.abs(mean)
    windows, mean, deviation = windows[usable], mean[usable], deviation[usable]
    skewness = np.nanmean((windows - mean[:, None, None]) ** 3, axis=(1, 2)) / deviation**3
    n = SIDE // CELL
    cells = np.nanmean(windows.reshape(-1, n, CELL, n, CELL), axis=(2, 4))
    unevenness = cells.std(axis=(1, 2)) * CELL / deviation
    best = np.argsort(unevenness, kind="stable")[: max(LEAST, int(len(windows) * SHARE))]
    return Moments(mean[best], deviation[best], skewness[best], unevenness[best])


def _windows(image: np.ndarray) -> np.ndarray:
    """Whole windows with few missing pixels, and in no cell none but those."""
    rows, columns = (n // SIDE for n in image.shape)
    blocks = image[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
    blocks = blocks.reshape(-1, SIDE, SIDE).astype(np.float64)
    there = np.isfinite(blocks)
    blocks[~there] = np.nan
    n = SIDE // CELL
    whole = there.reshape(-1, n, CELL, n, CELL).any(axis=(2, 4)).all(axis=(1, 2))
    return blocks[whole & (there.mean(axis=(1, 2)) >= 1 - MISSING)]
