"""What the shipped networks do to the radiometry of SAR scenes: simulated ones whose truth is known, and real ones.

Speckle is single-look and correlated unless said otherwise, as of a spaceborne complex image (``CORRELATED``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
from nearflash.sar import despeckle
from nearflash.sar.evaluate import CORRELATED
from nearflash.sar.metrics import enl, epd_roa, homogeneous_windows, ratio_statistics
from nearflash.sar.speckle import SystemResponse, speckled
from nearflash.sar.tiles import RAMP, plan_axis
from skimage import data

NETWORKS = ("base", "tiny")
RESPONSES = {"white": None, "correlated": CORRELATED, "strongly correlated": SystemResponse((0.5, 0.5), (0.75, 0.75))}
BORDER = 16  # pixels between an area and what is measured in it


def inner(image: np.ndarray) -> np.ndarray:
    return image[BORDER:-BORDER, BORDER:-BORDER]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("looks", [1, 4])
@pytest.mark.parametrize("speckle", list(RESPONSES))
def test_homogeneous_area(network: str, looks: int, speckle: str) -> None:
    noisy = speckled(np.full((320, 320), 7.0, np.float32), looks, np.random.default_rng(1), RESPONSES[speckle])
    out = despeckle(noisy, looks=looks, method=network)
    before, after = inner(noisy).astype(float), inner(out).astype(float)
    ratio = before / after
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.var() == pytest.approx(1 / looks, rel=0.1)
    assert after.mean() == pytest.approx(before.mean(), rel=0.02)
    assert (after.mean() ** 2 / after.var()) / (before.mean() ** 2 / before.var()) > 100  # the requirement is 20


@pytest.mark.parametrize("looks", [1, 4])
@pytest.mark.parametrize("speckle", ["white", "correlated"])
def test_even_ground_beside_structure(looks: int, speckle: str) -> None:
    """Constant squares in a photograph: its texture mustn't make the network take their speckle for more of it."""
    clean = ((data.camera().astype(np.float32) + 1) / 256) ** 2
    places = [(slice(r, r + 96), slice(c, c + 96)) for r in (40, 360) for c in (60, 210, 370)]
    for place in places:
        clean[place] = clean[place].mean()
    noisy = speckled(clean, looks, np.random.default_rng(7), RESPONSES[speckle])
    out = despeckle(noisy, looks=looks)
    pairs = [(inner(noisy[p]).astype(float), inner(out[p]).astype(float)) for p in places]
    assert np.mean([(x / y).mean() for x, y in pairs]) == pytest.approx(1, abs=0.02)
    assert np.mean([y.mean() / x.mean() for x, y in pairs]) == pytest.approx(1, abs=0.02)
    # Of 4096 pixels the input's own variance, 1/looks but for chance
    assert np.mean([(x / y).var() / (x.var() / x.mean() ** 2) for x, y in pairs]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("looks", [1, 4])
def test_areas_far_from_the_scenes_median_keep_their_mean(network: str, looks: int) -> None:
    """Fields of -12 to +18 dB beside each other: water, land, towns."""
    side = 128
    levels = np.array([[0, -12, 3, -6], [10, 0, -3, 6], [-3, 18, 0, -10], [-1, 2, -9, 14]])
    clean = np.kron(10 ** (levels / 10), np.ones((side, side))).astype(np.float32)
    before, after = np.zeros((2, 4, 4))
    for seed in range(3):
        noisy = speckled(clean, looks, np.random.default_rng(seed), CORRELATED)
        out = despeckle(noisy, looks=looks, method=network)
        for total, image in ((before, noisy), (after, out)):
            total += image.reshape(4, side, 4, side)[:, BORDER:-BORDER, :, BORDER:-BORDER].mean((1, 3), dtype=float)
    np.testing.assert_allclose(after / before, 1, atol=0.03)  # speckle alone: 0.6 % of standard deviation at a single look
    assert abs((after / before).mean() - 1) < 0.01


@pytest.mark.parametrize("contrast_db", [3, 6, 10])
def test_edges_are_kept(contrast_db: float) -> None:
    clean = np.ones((192, 192), np.float32)
    clean[:, 96:] = 10 ** (contrast_db / 10)
    step = np.zeros(192)
    for seed in range(3):
        noisy = speckled(clean, 1, np.random.default_rng(seed), CORRELATED)
        out = despeckle(noisy, looks=1)
        edge = (slice(BORDER, -BORDER), slice(90, 102))
        assert epd_roa(np.sqrt(noisy), np.sqrt(out), window=edge, side=3) > 0.9  # the requirement is 0.8
        step += np.sqrt(out[BORDER:-BORDER]).mean(0) / 3
    # Along the columns the mean amplitude goes from 10 to 90 % of the step within four pixels, three from 6 dB
    share = (step - 1) / (10 ** (contrast_db / 20) - 1)
    low, high = np.interp([0.1, 0.9], share[84:108], np.arange(84, 108))
    assert high - low < (4 if contrast_db < 6 else 3)


@pytest.mark.parametrize("amplitude", [30, 100])
def test_bright_targets_pass_and_leave_no_artefacts(amplitude: float) -> None:
    side = 192
    y, x = np.mgrid[:side, :side]
    places = [(48, 48), (48, 140), (140, 50), (141.5, 140.5), (96, 96)]
    rng = np.random.default_rng(3)
    echo = sum(amplitude * np.exp(2j * np.pi * rng.random() - ((y - a) ** 2 + (x - b) ** 2) / (2 * 0.7**2))
               for a, b in places)
    noisy = speckled(np.ones((side, side), np.float32), 1, rng, CORRELATED, np.asarray(echo, np.complex64))
    out = despeckle(noisy, looks=1)
    for a, b in places:
        distance = np.hypot(y - a, x - b)
        core, ring = distance <= 1, (distance > 5) & (distance < 14)
        assert out[core].max() == pytest.approx(noisy[core].max(), rel=0.05)
        # Neither a halo nor a dark ring nor ripples: clutter of 1 as far away
        assert out[ring].mean() == pytest.approx(1, abs=0.08)
        assert out[ring].min() > 0.6
        assert out[ring].max() < 1.5


@pytest.mark.parametrize("network", NETWORKS)
def test_tiles_leave_no_seam(network: str) -> None:
    side, tile = 640, 256
    noisy = speckled(np.ones((side, side), np.float32), 1, np.random.default_rng(5), CORRELATED)
    tiled = despeckle(noisy, looks=1, method=network, tile=tile)
    whole = despeckle(noisy, looks=1, method=network, tile=2 * side)
    assert np.sqrt(np.mean((tiled / whole - 1) ** 2)) < 0.02
    at = np.zeros(side - 1, bool)
    for start in plan_axis(side, tile, 32, 32).ramps:
        at[start - 1 : start + RAMP] = True
    for axis in (0, 1):
        steps = np.abs(np.diff(tiled.mean(axis, dtype=float)))
        assert at.sum() > 2 * RAMP
        assert steps[at].mean() < 1.5 * steps[~at].mean()


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_constant_stays(network: str) -> None:
    """No speckle at all is far from what the networks were trained on."""
    for value in (1e-6, 7.0, 5e4):
        image = np.full((70, 90), value, np.float32)
        np.testing.assert_array_equal(despeckle(image, looks=1, method=network), image)


def read_amplitude(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float32)


def test_a_real_single_look_scene(shared_data: Path) -> None:
    """512 x 512 pixels, 8 bits, correlated; all amplitudes below 26 were stored as 0, 31 % of the pixels."""
    amplitude = read_amplitude(shared_data / "real_sar" / "perera_test_01.png")
    noisy = amplitude**2
    out = despeckle(noisy, looks=1)
    windows = homogeneous_windows(noisy, 32)
    assert np.median([enl(out[w]) / enl(noisy[w]) for w in windows]) > 50  # the requirement is 20
    for direction in ("horizontal", "vertical"):
        assert epd_roa(amplitude, np.sqrt(out), direction, side=3) > 0.85  # the requirement is 0.8
    assert out.mean(dtype=float) == pytest.approx(noisy.mean(dtype=float), rel=0.02)
    kept = np.array([out[w].mean(dtype=float) / noisy[w].mean(dtype=float) for w in windows])
    assert np.median(kept) == pytest.approx(1, abs=0.03)
    ratios = np.array([ratio_statistics(noisy[w], out[w]) for w in windows])
    assert np.median(ratios[:, 0]) == pytest.approx(1, abs=0.02)
    assert np.median(ratios[:, 1]) == pytest.approx(1, abs=0.1)
