"""Equivalent number of looks before and after, on the most even windows of a scene that passes by in rows."""

from __future__ import annotations

import numpy as np

__all__ = ["EvenWindows"]

SIDE = 32  # pixels of a window
CELL = 8  # the window's structure is the spread of the means of its cells, in which speckle is mostly averaged out
SHARE = 0.02  # of all windows that count as the most even
MISSING = 0.25  # largest share of missing pixels
ZEROS = 0.05  # largest share of pixels of intensity 0: in 8 bits even bright single-look land has some


class EvenWindows:
    """Collects mean^2 / variance of whole windows of two images; the choice looks at the input's structure alone, so it
    favours neither."""

    def __init__(self) -> None:
        self._found: list[np.ndarray] = []

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Two images of the same rows, intensity [rows, W]; windows with many missing pixels or zeros are left out."""
        rows, columns = (n // SIDE for n in before.shape)
        a, b = (i[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3)
                .reshape(-1, SIDE, SIDE) for i in (before, after))
        there = ~(np.isnan(a) | np.isnan(b))
        pixels = there.sum(axis=(1, 2))
        good = pixels >= (1 - MISSING) * SIDE**2
        good &= np.min([(there & (i > 0)).sum(axis=(1, 2)) for i in (a, b)], axis=0) >= (1 - ZEROS) * pixels
        cells = there.reshape(-1, SIDE // CELL, CELL, SIDE // CELL, CELL).any(axis=(2, 4)).all(axis=(1, 2))
        a, b = a[good & cells], b[good & cells]
        cells = np.nanmean(a.reshape(-1, SIDE // CELL, CELL, SIDE // CELL, CELL), axis=(2, 4), dtype=np.float64)
        structure = cells.std(axis=(1, 2)) / cells.mean(axis=(1, 2))
        self._found.append(np.stack([structure, _looks(a), _looks(b)]))

    def looks(self) -> tuple[float | None, float | None]:
        """Median number of looks of the most even windows (before, after); None where there are no windows, or no
        variation."""
        structure, before, after = np.concatenate(self._found, axis=1) if self._found else np.empty((3, 0))
        if not len(structure):
            return None, None
        best = np.argsort(structure, kind="stable")[: max(1, int(len(structure) * SHARE))]
        return _finite(float(np.median(before[best]))), _finite(float(np.median(after[best])))


def _looks(windows: np.ndarray) -> np.ndarray:
    mean, variance = (f(windows, axis=(1, 2), dtype=np.float64) for f in (np.nanmean, np.nanvar))
    with np.errstate(divide="ignore"):
        return mean * mean / variance


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
