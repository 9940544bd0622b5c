"""Simulated SAR scenes whose truth is known, to measure on what a despeckler does to radiometry.

All are intensity, float32 [H, W]; :func:`observed` puts the speckle on. ``bench/radiometry.py`` measures on them, and
``tests/sw/sar/test_radiometry.py`` asserts what must hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from .evaluate import CORRELATED
from .metrics import Window
from .speckle import SystemResponse, speckled
from .tiles import RAMP, plan_axis

__all__ = ["BORDER", "EDGE_WINDOW", "MAP_GRID", "SPECKLE", "around_targets", "edge", "edge_width", "even_area",
           "fields", "fields_kept", "inner", "joints", "observed", "point_targets", "squares_in_a_photograph",
           "steps_at_joints"]

BORDER = 16  # pixels between an area and what is measured in it
MAP_GRID = "on a map's grid"  # white, interpolated to pixels 1.8 times smaller, as terrain correction does
ZOOM = 1.8
#: Speckle by name; the correlated one is a spaceborne complex image's, sampled 1.25 times denser than its band.
SPECKLE = {"white": None, "correlated": CORRELATED, "oversampled by 2": SystemResponse((0.5, 0.5), (0.75, 0.75)),
           "oversampled by 2.5": SystemResponse((0.4, 0.4), (0.75, 0.75))}

FIELD = 128  # pixels on a side
LEVELS_DB = np.array([[0, -15, 3, -6], [10, 0, -3, 6], [-3, 20, 0, -10], [-1, 2, -9, 14]])
SQUARE = 96
SQUARES: list[Window] = [(slice(r, r + SQUARE), slice(c, c + SQUARE)) for r in (40, 360) for c in (60, 210, 370)]
EDGE_SIDE, EDGE_AT = 192, 96
EDGE_WINDOW: Window = (slice(BORDER, -BORDER), slice(EDGE_AT - 6, EDGE_AT + 6))
TARGETS_SIDE = 192
TARGETS = ((48, 48), (48, 140), (140, 50), (141.5, 140.5), (96, 96))  # row, column
TARGET_WIDTH = 0.7  # pixels, sigma of the response


def inner(image: np.ndarray) -> np.ndarray:
    """All but :data:`BORDER` pixels on each side, float64."""
    return image[BORDER:-BORDER, BORDER:-BORDER].astype(np.float64)


def observed(clean: np.ndarray, looks: int, seed: int, speckle: str = "correlated",
             targets: np.ndarray | None = None) -> np.ndarray:
    """Noisy intensity of ``clean`` with a speckle of :data:`SPECKLE` or :data:`MAP_GRID`; ``targets``: complex echoes."""
    rng = np.random.default_rng(seed)
    if speckle != MAP_GRID:
        return speckled(clean, looks, rng, SPECKLE[speckle], targets)
    height, width = clean.shape
    coarse = Image.fromarray(clean).resize((round(width / ZOOM), round(height / ZOOM)), Image.Resampling.BOX)
    noisy = Image.fromarray(speckled(np.asarray(coarse), looks, rng))
    return np.asarray(noisy.resize((width, height), Image.Resampling.BILINEAR))


def even_area() -> np.ndarray:
    return np.full((320, 320), 7.0, np.float32)


def squares_in_a_photograph() -> tuple[np.ndarray, list[Window]]:
    """scikit-image's ``camera`` with constant squares, and where they are: even ground beside structure."""
    from skimage import data

    clean = ((data.camera().astype(np.float32) + 1) / 256) ** 2
    for place in SQUARES:
        clean[place] = clean[place].mean()
    return clean, SQUARES


def fields() -> np.ndarray:
    """Fields of -15 to +20 dB about the median beside each other: water, land, towns."""
    return np.kron(10 ** (LEVELS_DB / 10), np.ones((FIELD, FIELD))).astype(np.float32)


def fields_kept(before: list[np.ndarray], after: list[np.ndarray]) -> np.ndarray:
    """Of each of :func:`fields` the mean of the images ``after`` over that of those ``before``, float64 [4, 4]."""
    rows, columns = LEVELS_DB.shape
    means = []
    for images in (before, after):
        parts = np.stack(images).reshape(-1, rows, FIELD, columns, FIELD)[:, :, BORDER:-BORDER, :, BORDER:-BORDER]
        means.append(parts.mean((0, 2, 4), dtype=np.float64))
    return means[1] / means[0]


def edge(contrast_db: float) -> np.ndarray:
    """1, and from the middle column on ``contrast_db`` more."""
    clean = np.ones((EDGE_SIDE, EDGE_SIDE), np.float32)
    clean[:, EDGE_AT:] = 10 ** (contrast_db / 10)
    return clean


def edge_width(images: list[np.ndarray], contrast_db: float) -> float:
    """Columns over which the mean amplitude of images of :func:`edge` goes from 10 to 90 % of the step."""
    step = np.mean([np.sqrt(i[BORDER:-BORDER]).mean(0, dtype=np.float64) for i in images], axis=0)
    share = (step - 1) / (10 ** (contrast_db / 20) - 1)
    near = np.arange(EDGE_AT - 12, EDGE_AT + 12)
    low, high = np.interp([0.1, 0.9], share[near], near)
    return float(high - low)


def point_targets(amplitude: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clutter of 1, and the complex echoes of five targets of that amplitude and any phase, one between pixels."""
    y, x = np.mgrid[:TARGETS_SIDE, :TARGETS_SIDE]
    echo = np.sum([np.exp(2j * np.pi * rng.random() - ((y - a) ** 2 + (x - b) ** 2) / (2 * TARGET_WIDTH**2))
                   for a, b in TARGETS], axis=0)
    return np.ones((TARGETS_SIDE, TARGETS_SIDE), np.float32), (amplitude * echo).astype(np.complex64)


def around_targets() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each target the pixels of its peak and those of the clutter 5 to 14 pixels away: bool [H, W] each."""
    y, x = np.mgrid[:TARGETS_SIDE, :TARGETS_SIDE]
    for a, b in TARGETS:
        distance = np.hypot(y - a, x - b)
        yield distance <= 1, (distance > 5) & (distance < 14)


def steps_at_joints(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Mean step between rows, and between columns, where ``at`` says, over that elsewhere: [2]. ``image`` is square."""
    steps = [np.abs(np.diff(image.mean(axis, dtype=np.float64))) for axis in (1, 0)]
    return np.array([s[at].mean() / s[~at].mean() for s in steps])


def joints(side: int, tile: int, margin: int, multiple: int) -> np.ndarray:
    """Of the ``side - 1`` steps between rows (or columns) those where one tile fades into the next: bool."""
    at = np.zeros(side - 1, bool)
    for start in plan_axis(side, tile, margin, multiple).ramps:
        at[start - 1 : start + RAMP] = True
    return at
