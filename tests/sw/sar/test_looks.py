"""The number of looks where there is little even ground, or pixels are 0 or missing, and how sure the estimate is."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from nearflash.sar.looks import estimate_looks, neighbour_looks
from nearflash.sar.speckle import SystemResponse, speckled
from scipy.ndimage import gaussian_filter, uniform_filter, zoom


def speckle(shape: tuple[int, int], looks: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


def town(shape: tuple[int, int], contrast: float, every: int, seed: int = 0) -> np.ndarray:
    """Brightness that varies within a few pixels everywhere, by ``contrast`` (rms of the logarithm), and a point far above
    it every so many pixels."""
    rng = np.random.default_rng(seed)
    clean = np.exp(contrast * gaussian_filter(rng.normal(size=shape), 1.5) / 0.19)
    clean.flat[rng.integers(0, clean.size, clean.size // every)] *= 300
    return uniform_filter(clean, 2)


@pytest.mark.parametrize("looks", [1, 4.4, 16])
def test_neighbours_tell_the_looks_of_speckle(looks):
    assert neighbour_looks([speckle((200, 200), looks)]) == pytest.approx(looks, rel=0.08)


@pytest.mark.parametrize(("looks", "contrast", "every"), [(1, 1, 150), (4.4, 1, 150), (4.4, 0.8, 3000)])
def test_a_town_without_even_ground(looks, contrast, every):
    scene = town((300, 300), contrast, every) * speckle((300, 300), looks, seed=3)
    found = estimate_looks([scene])
    assert not found.even
    assert found.looks == pytest.approx(looks, rel=0.4)
    assert found.low < looks < found.high


def test_a_town_on_a_maps_grid():
    """Neighbours made of each other are nearly equal: there pixels two apart are compared, which still says too much, by
    as much as interpolation averages (2.25 times at most)."""
    scene = town((200, 200), 0.8, 3000) * speckle((200, 200), 4.4, seed=3)
    found = estimate_looks([zoom(scene, 1.8, order=1)])
    assert not found.even
    assert 4.4 / 1.5 < found.looks < 2.25 * 4.4
    assert neighbour_looks([zoom(scene, 1.8, order=1)]) > 3 * 4.4


@pytest.mark.parametrize("share", [0.02, 0.15])
def test_zeros_and_missing_pixels_are_borne(share):
    rng = np.random.default_rng(5)
    values = speckle((180, 180), 4).astype(np.float32)
    holed = np.where(rng.random(values.shape) < share, np.nan, values)
    assert estimate_looks([holed]).looks == pytest.approx(4, rel=0.2)
    # A single-look complex image of whole numbers: dark pixels are stored as 0
    parts = np.rint(rng.normal(size=(2, 180, 180)) * (1.5 if share < 0.1 else 0.8))
    quantised = (parts**2).sum(0)
    assert (quantised == 0).mean() > share
    assert estimate_looks([quantised]).looks == pytest.approx(1, rel=0.25)


def test_correlated_speckle_of_a_usual_sensor():
    rng = np.random.default_rng(1)
    noisy = speckled(np.ones((300, 300), np.float32), 1, rng, SystemResponse((0.8, 0.8), (0.75, 0.75)))
    found = estimate_looks([noisy])
    assert found.even
    assert found.looks == pytest.approx(1, rel=0.2)


def test_certainty_grows_with_the_image_and_has_a_floor():
    small, large = (estimate_looks([speckle((side, side), 4)]) for side in (30, 400))
    assert (small.high - small.low) / small.looks > (large.high - large.low) / large.looks > 0.2
    assert estimate_looks([np.full((50, 50), 3.0)]) is None
    assert estimate_looks([np.full((50, 50), np.nan)]) is None
    assert estimate_looks([]) is None
