"""What a method must know of the whole scene before its first tile, from a sample of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .io.base import Scene
from .looks import WINDOW, LooksEstimate, estimate_looks
from .metrics import Window

__all__ = ["MEDIAN_AMPLITUDE", "SceneStatistics", "sample_places", "survey"]

MEDIAN_AMPLITUDE = 0.4  # of a scene after division by its scale, as the networks were trained
SAMPLE_BANDS = 32
SAMPLE_ROWS = 4 * WINDOW
SAMPLE_PIXELS = 1 << 22
ZERO_FLOOR = 1e-6  # of the median intensity: what a pixel of intensity 0 is for a method that takes logarithms


@dataclass(frozen=True)
class SceneStatistics:
    """``scale``: intensity to divide by so that the median amplitude of the pixels above 0 is 0.4; ``floor``: intensity
    that stands for 0; ``estimate``: of the looks, None if there can't be one."""

    scale: float
    floor: float
    estimate: LooksEstimate | None

    @property
    def looks(self) -> float | None:
        """The estimated number of looks."""
        return self.estimate.looks if self.estimate else None


def sample_places(shape: tuple[int, int]) -> list[Window]:
    """The (rows, columns) of an image of ``shape`` that are looked at before the first tile: up to :data:`SAMPLE_BANDS`
    evenly spaced bands of :data:`SAMPLE_ROWS` rows, and in each another run of columns, :data:`SAMPLE_PIXELS` in all."""
    rows, columns = shape
    count = min(SAMPLE_BANDS, -(-rows // SAMPLE_ROWS))
    height = min(SAMPLE_ROWS, rows)
    width = min(columns, max(1, SAMPLE_PIXELS // (count * height)))
    share = max(1, count - 1)
    tops = [k * (rows - height) // share for k in range(count)]
    lefts = [k * (columns - width) // share for k in range(count)]
    return [(slice(a, a + height), slice(b, b + width)) for a, b in zip(tops, lefts, strict=True)]


def survey(scene: Scene, band: int = 0, *, looks: bool = True) -> SceneStatistics:
    """Statistics of the pixels of :func:`sample_places`, always the same ones, whatever the tiles; the median is of whole
    rows, thinned out. Scenes without a pixel above 0 get scale and floor 1. ``looks``: whether to estimate them."""
    pixels, parts = [], []
    places = sample_places(scene.shape)
    step = max(1, sum(r.stop - r.start for r, _ in places) * scene.shape[1] // SAMPLE_PIXELS)
    for rows, columns in places:
        values = scene.read(rows, band)
        some = values[:, ::step]
        pixels.append(some[some > 0])
        if looks:
            parts.append(values[:, columns].copy())
    positive = np.concatenate(pixels)
    if not len(positive):
        return SceneStatistics(1.0, 1.0, None)
    median = float(np.median(positive))
    tiny = float(np.finfo(np.float32).tiny)
    return SceneStatistics(max(median / MEDIAN_AMPLITUDE**2, tiny), max(median * ZERO_FLOOR, tiny),
                           estimate_looks(parts) if looks else None)
