"""Bias correction: a smooth gain by which a despeckled image keeps the mean of its input around every pixel.

No network is unbiased on every product: looks told wrongly, dark pixels stored as 0, a map's grid, land far brighter than
the scene's median each shift its mean by a few percent. What the input's own mean says about it is unbiased but noisy, so
the gain follows it only as far as the number of looks in the neighbourhood allows.
"""

from __future__ import annotations

import numpy as np

__all__ = ["LIMIT", "REACH", "keep_local_mean"]

BLOCK = 4  # pixels on a side of the cells in which means are taken first
BOX = 9  # cells on a side of the average that is taken twice: a pyramid of weights, 68 pixels wide at its foot
REACH = BLOCK * BOX + BLOCK // 2  # pixels beyond which nothing counts
LIMIT = 1.1  # largest gain: a bright target that a method has damped must not light up its surroundings
EXPECTED_BIAS = 0.08  # relative, of intensity: single-look ground on a map's grid has up to 13 %, most else 0.5 to 3 %
CORRELATION = 1.5  # pixels to an independent sample: 1.25 each way in the usual single-look product


def keep_local_mean(before: np.ndarray, after: np.ndarray, looks: float = np.inf,
                    expected_bias: float = EXPECTED_BIAS) -> np.ndarray:
    """``after`` times a gain that is smooth over some 40 pixels and at most :data:`LIMIT`, or 1 over it.

    The gain is the ratio of the two images' means, each pixel weighing by 1 over its own brightness as it is after, so that
    a bright target or field says no more about the land beside it than that land does itself. With a finite number of
    looks it is drawn towards 1 as the best linear estimate of the bias seen through that much speckle.

    Args:
        before: intensity [H, W] or [N, H, W], finite, >= 0.
        after: the same despeckled.
        looks: of ``before``; inf keeps the mean whatever the speckle.
        expected_bias: relative, of intensity; 0 changes nothing.

    Returns:
        float32 of the same shape.
    """
    from scipy.ndimage import uniform_filter

    height, width = before.shape[-2:]

    def box(cells: np.ndarray, side: int) -> np.ndarray:
        return uniform_filter(cells, side, axes=(-2, -1))

    cells_before, cells_after = _cells(before), _cells(after)
    brightness = np.maximum(box(cells_after, 3), cells_after)
    with np.errstate(divide="ignore", invalid="ignore"):
        weighed = [np.nan_to_num(c / brightness, posinf=0.0) for c in (cells_before, cells_after)]
        before_mean, after_mean = (box(box(w, BOX), BOX) for w in weighed)
        gain = np.nan_to_num(before_mean / after_mean, nan=1.0)
    independent = looks * (1.5 * BOX * BLOCK) ** 2 / CORRELATION
    trust = expected_bias**2 / (expected_bias**2 + 1 / independent) if expected_bias else 0.0
    gain = 1 + np.float32(trust) * (np.clip(gain, 1 / LIMIT, LIMIT) - 1)
    return after * _columns(_columns(gain.swapaxes(-2, -1)).swapaxes(-2, -1))[..., :height, :width]


def _cells(image: np.ndarray) -> np.ndarray:
    """Means of cells of BLOCK x BLOCK pixels, those cut off at the end filled with the last row and column."""
    pads = [(0, 0)] * (image.ndim - 2) + [(0, -n % BLOCK) for n in image.shape[-2:]]
    padded = np.pad(image, pads, mode="edge") if any(after for _, after in pads) else image
    rows, columns = (n // BLOCK for n in padded.shape[-2:])
    # Rows first: long runs, where a mean over both axes at once walks four pixels at a time
    of_rows = padded.reshape(*image.shape[:-2], rows, BLOCK, columns * BLOCK).mean(axis=-2, dtype=np.float32)
    return of_rows.reshape(*image.shape[:-2], rows, columns, BLOCK).mean(axis=-1)


def _columns(cells: np.ndarray) -> np.ndarray:
    """Linear interpolation from the middles of cells to their pixels along the last axis, which gets BLOCK times longer."""
    before, after = cells[..., [0, *range(cells.shape[-1] - 1)]], cells[..., [*range(1, cells.shape[-1]), -1]]
    pixels = np.empty((*cells.shape, BLOCK), np.float32)
    for k in range(BLOCK):
        offset = (k + 0.5) / BLOCK - 0.5  # of a cell, from its middle
        pixels[..., k] = cells + np.float32(abs(offset)) * ((before if offset < 0 else after) - cells)
    return pixels.reshape(*cells.shape[:-1], -1)
