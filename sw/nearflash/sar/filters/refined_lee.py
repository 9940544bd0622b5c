"""Refined Lee filter: local statistics from the half window that lies on the pixel's own side of an edge.

Source: J.-S. Lee, "Refined filtering of image noise using local statistics", Computer Graphics and Image Processing 15(4),
1981.
"""

from __future__ import annotations

import numpy as np

from .local import TINY, as_float32, check, local_mean, local_moments, speckle_variance

__all__ = ["refined_lee"]

# Gradients over the 3 x 3 means of the overlapping 3 x 3 sub-windows: edges that run |, /, - and \
TEMPLATES = np.array([
    [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
    [[-1, -1, 0], [-1, 0, 1], [0, 1, 1]],
    [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
    [[0, -1, -1], [1, 0, -1], [1, 1, 0]],
])


def _half_windows() -> np.ndarray:
    """The pixels of the 8 edge-aligned windows: [direction * 2 + side, 7, 7], each the 28 pixels up to and with the edge."""
    i, j = np.mgrid[-3:4, -3:4]
    across = (j, i + j, i, i - j)  # grows towards the positive side of each template
    return np.stack([half for a in across for half in (a <= 0, a >= 0)])


HALF_WINDOWS = _half_windows()


def _window_number(z: np.ndarray) -> np.ndarray:
    """For each pixel, the half window [0, 8) on its side of the strongest gradient."""
    h, w = z.shape
    padded = local_mean(np.pad(z, 3, mode="symmetric"), 3)[1:-1, 1:-1]
    sub = [[padded[i : i + h, j : j + w] for j in (0, 2, 4)] for i in (0, 2, 4)]
    gradients = np.stack([sum(int(t[i, j]) * sub[i][j] for i in range(3) for j in range(3) if t[i, j]) for t in TEMPLATES])
    direction = np.abs(gradients).argmax(0)
    # The positive side when its sub-window's mean is nearer to the centre's than that of the other side
    ends = [((1, 0), (1, 2)), ((0, 0), (2, 2)), ((0, 1), (2, 1)), ((0, 2), (2, 0))]
    centre = sub[1][1]
    positive = np.stack([np.abs(sub[p[0]][p[1]] - centre) < np.abs(sub[n[0]][n[1]] - centre) for n, p in ends])
    return 2 * direction + np.take_along_axis(positive, direction[None], 0)[0]


def refined_lee(intensity: np.ndarray, looks: float) -> np.ndarray:
    """Filter ``intensity`` [H, W] > 0 of ``looks`` looks in 7 x 7 windows; float32 [H, W] > 0.

    Where the window is homogeneous (Cz^2 <= Cu^2 = 1/L) the output is its mean. Elsewhere the means of the nine overlapping
    3 x 3 sub-windows give the edge's direction (the strongest of four gradients) and the side on which the pixel lies (the
    sub-window whose mean is nearer to the centre's); mean m and variance v of that half of the window (28 pixels) give
    m + k (z - m), k = q / v, q = (v - m^2 Cu^2) / (1 + Cu^2), not below 0.

    Raises:
        DataError, ConfigError: not [H, W]; looks out of range.
    """
    z = check(intensity, looks, 7)
    mean, var = local_moments(z, 7)
    cu2 = speckle_variance(looks)
    edge = var > cu2 * mean * mean
    number = _window_number(z)

    h, w = z.shape
    padded = np.pad(z, 3, mode="symmetric")
    half_sum, half_squares = np.zeros_like(z), np.zeros_like(z)
    for i in range(7):
        for j in range(7):
            pixel = padded[i : i + h, j : j + w] * HALF_WINDOWS[:, i, j][number]
            half_sum += pixel
            half_squares += pixel * pixel
    count = int(HALF_WINDOWS[0].sum())
    half_mean = half_sum / count
    half_var = np.maximum(half_squares / count - half_mean * half_mean, 0)
    k = np.maximum(half_var - half_mean * half_mean * cu2, 0) / (1 + cu2) / np.maximum(half_var, TINY)
    return as_float32(np.where(edge, half_mean + k * (z - half_mean), mean))
