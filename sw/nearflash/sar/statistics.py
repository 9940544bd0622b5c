"""What a method must know of the whole scene before its first tile, from a sample of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .io.base import Scene
from .looks import WINDOW, estimate_looks

__all__ = ["MEDIAN_AMPLITUDE", "SceneStatistics", "survey"]

MEDIAN_AMPLITUDE = 0.4  # of a scene after division by its scale, as the networks were trained
SAMPLE_BANDS = 32
SAMPLE_ROWS = 4 * WINDOW
SAMPLE_PIXELS = 1 << 22
ZERO_FLOOR = 1e-6  # of the median intensity: what a pixel of intensity 0 is for a method that takes logarithms


@dataclass(frozen=True)
class SceneStatistics:
    """``scale``: intensity to divide by so that the median amplitude of the pixels above 0 is 0.4; ``floor``: intensity
    that stands for 0; ``looks``: estimated, None if it can't be."""

    scale: float
    floor: float
    looks: float | None


def survey(scene: Scene, band: int = 0, *, looks: bool = True) -> SceneStatistics:
    """Sample up to :data:`SAMPLE_BANDS` evenly spaced bands of :data:`SAMPLE_ROWS` rows: always the same ones, whatever
    the tiles. Scenes without a pixel above 0 get scale and floor 1. ``looks``: whether to estimate them."""
    rows, columns = scene.shape
    count = min(SAMPLE_BANDS, -(-rows // SAMPLE_ROWS))
    height = min(SAMPLE_ROWS, rows)
    column_step = max(1, count * height * columns // SAMPLE_PIXELS)
    width = columns if column_step == 1 else SAMPLE_PIXELS // (count * height)
    pixels, parts = [], []
    for k in range(count):
        first = k * (rows - height) // max(1, count - 1)
        band_rows = scene.read(slice(first, first + height), band)
        some = band_rows[:, ::column_step]
        pixels.append(some[some > 0])
        if looks:
            # A run of neighbours for the looks, another one in each band
            left = k * (columns - width) // max(1, count - 1)
            parts.append(band_rows[:, left : left + width].copy())
    positive = np.concatenate(pixels)
    if not len(positive):
        return SceneStatistics(1.0, 1.0, None)
    median = float(np.median(positive))
    tiny = float(np.finfo(np.float32).tiny)
    return SceneStatistics(max(median / MEDIAN_AMPLITUDE**2, tiny), max(median * ZERO_FLOOR, tiny),
                           estimate_looks(parts) if looks else None)
