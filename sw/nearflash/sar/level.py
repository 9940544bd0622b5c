"""What a network in int8 is spared: levels that no code is left for.

Its codes reach as far as what it was calibrated with: photographs, which are brighter than their median by a few decibels.
A radar's fields are by twenty. In fp32 a network takes any; in int8 they would all come out as bright as the largest code.
So an image is divided by how far its smoothed amplitude is above what the codes hold, and what the network made of it
multiplied by that again.
"""

from __future__ import annotations

import numpy as np

__all__ = ["REACH", "level"]

MOST = 1.1  # smoothed amplitude that a network is given at most, where the scene's median is about 0.4
BOX = 15  # pixels on a side of the average that is taken twice
REACH = BOX - 1  # pixels beyond which nothing counts: within a tile's margin


def level(amplitude: np.ndarray) -> np.ndarray:
    """How far ``amplitude`` [..., H, W], smoothed, is above :data:`MOST`: float32 of the same shape, at least 1."""
    from scipy.ndimage import uniform_filter

    smooth = amplitude
    for _ in range(2):
        smooth = uniform_filter(smooth, BOX, axes=(-2, -1), mode="nearest")
    return np.maximum(np.float32(1), smooth / np.float32(MOST))
