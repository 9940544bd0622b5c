"""What a network in int8 is spared: levels that no code is left for.

Its codes reach as far as what it was calibrated with: photographs, which are brighter than their median by a few decibels.
A radar's fields are by twenty, and its towns are full of targets. In fp32 a network takes any; in int8 they would all come
out as bright as the largest code. So an image is divided by how far its smoothed amplitude is above what the codes hold, or
about targets theirs, and what the network made of it multiplied by that again.
"""

from __future__ import annotations

import numpy as np

from .scatterers import REACH as GROUND_REACH
from .scatterers import ground_level

__all__ = ["REACH", "level"]

MOST = 1.1  # smoothed amplitude that a network is given at most, where the scene's median is about 0.4
BOX = 15  # pixels on a side of the average that is taken twice
MOST_OF_TARGETS, TARGET_DB = 1.5, 11.0  # and that of targets, so far above the ground: what speckle alone hardly gets to
NEAR, TARGET_BOX = 9, 15  # pixels on a side about a target that are as bright as it, and of the average taken twice of that
REACH = max(BOX - 1, 2 * GROUND_REACH + NEAR // 2 + TARGET_BOX - 1)  # pixels beyond which nothing counts


def level(amplitude: np.ndarray, looks: float) -> np.ndarray:
    """How far ``amplitude`` [..., H, W] of ``looks``, smoothed, is above :data:`MOST`, or that of its targets above
    :data:`MOST_OF_TARGETS`: float32 of the same shape, at least 1."""
    from scipy.ndimage import maximum_filter

    intensity = np.square(amplitude)
    target = intensity > ground_level(intensity, looks) * np.float32(10 ** (TARGET_DB / 10))
    bright = maximum_filter(np.where(target, amplitude, np.float32(0)), NEAR, axes=(-2, -1), mode="nearest")
    return np.maximum(np.float32(1), np.maximum(_smooth(amplitude, BOX) / np.float32(MOST),
                                                _smooth(bright, TARGET_BOX) / np.float32(MOST_OF_TARGETS)))


def _smooth(image: np.ndarray, side: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    for _ in range(2):
        image = uniform_filter(image, side, axes=(-2, -1), mode="nearest")
    return image
