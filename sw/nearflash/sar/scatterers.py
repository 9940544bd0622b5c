"""Strong scatterers around a network: what can't be speckle is kept, and nothing comes out brighter than what went in.

A network has learnt how bright speckle gets, not how bright a ship or a corner of a house is. Whether a pixel can be
speckle is a question of its contrast to the ground around it, as a constant false alarm rate detector asks it. The ground's
level is the highest of four halves of the surroundings (V. G. Hansen, J. H. Sawyers, "Detectability loss due to greatest-of
selection in a cell-averaging CFAR", IEEE Trans. AES 1980), so that the bright side of an edge isn't taken for targets, and
of each half the geometric mean, which other targets hardly raise: towns are full of them.
"""

from __future__ import annotations

import numpy as np

__all__ = ["DIMMED_DB", "DIMMED_DB_INT8", "REACH", "bounded", "dimmed", "ground_level", "keep_strong"]

REACH = 7  # pixels to which the ground is looked at
NEAR = 3  # pixels within which an output may not be brighter than all of the input
#: Above the ground, what a network gets to see of a target at most: nothing beyond changes its surroundings. In int8 less:
#: what leaves the codes inside the network lights up the ground beside the target, 1.8 times at 20 dB.
DIMMED_DB, DIMMED_DB_INT8 = 20.0, 17.0
#: Contrast in dB from which a pixel is kept in part, and from how much more in whole. On even ground single-look speckle
#: gets beyond 11 dB three times in a million, four looks beyond 9.5 dB never: there texture sets the limit. Lower limits
#: keep more of a town and cost more of a photograph's PSNR: 0.026 dB at a single look, 0.013 dB at four.
FROM_DB, FROM_DB_PER_LOOK, RISE_DB = 9.0, 2.0, 3.0
#: Of the squared mean amplitude around: what darker pixels count as. Products store the dark end as 0, whose logarithm would
#: say all of the ground's level.
FLOOR = 0.1
#: Amplitude to which that mean counts, 20 dB above the median of a scene as networks get it: one target is no ground
BRIGHTEST = 4.0


def ground_level(intensity: np.ndarray, looks: float) -> np.ndarray:
    """The level of the ground about every pixel, float32 [..., H, W].

    ``intensity``: [..., H, W], finite, >= 0, of a median amplitude of about 0.4; ``looks``: of its speckle, by which its
    logarithm's mean is off.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.special import digamma

    around = np.minimum(np.sqrt(intensity, dtype=np.float32), np.float32(BRIGHTEST))
    for axis in (-2, -1):
        around = uniform_filter1d(around, 2 * REACH + 1, axis=axis, mode="nearest")
    floor = np.maximum(np.float32(FLOOR) * around**2, np.finfo(np.float32).tiny)
    log = np.log(np.maximum(intensity, floor).astype(np.float32))
    highest = None
    for along, across in ((-2, -1), (-1, -2)):
        lines = uniform_filter1d(log, 2 * REACH + 1, axis=across, mode="nearest")
        for origin in (-(REACH + 1) // 2, REACH // 2):  # from the pixel on, and up to it
            half = uniform_filter1d(lines, REACH + 1, axis=along, mode="nearest", origin=origin)
            highest = half if highest is None else np.maximum(highest, half, out=highest)
    return np.exp(highest - np.float32(digamma(looks) - np.log(looks)))


def dimmed(intensity: np.ndarray, ground: np.ndarray, db: float = DIMMED_DB) -> np.ndarray:
    """``intensity`` with its targets no more than ``db`` above the ground."""
    return np.minimum(intensity, ground * np.float32(10 ** (db / 10)))


def keep_strong(before: np.ndarray, after: np.ndarray, ground: np.ndarray, looks: float) -> np.ndarray:
    """``after`` where ``before`` may be speckle, ``before`` where it can't, between them in between; float32 [..., H, W]."""
    low = FROM_DB + FROM_DB_PER_LOOK / max(looks, 1.0)
    contrast = 10 * np.log10(np.maximum(before, np.finfo(np.float32).tiny) / ground)
    share = np.clip((contrast - np.float32(low)) / np.float32(RISE_DB), 0, 1)
    share *= share * (3 - 2 * share)
    return after + share * (before - after)


def bounded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``after``, nowhere above the highest value of ``before`` within :data:`NEAR` pixels; [..., H, W]."""
    from scipy.ndimage import maximum_filter1d

    highest = before
    for axis in (-2, -1):
        highest = maximum_filter1d(highest, 2 * NEAR + 1, axis=axis, mode="nearest")
    return np.minimum(after, highest)
