"""Strong scatterers: kept at every contrast, never made brighter, and nothing to do with the ground beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nearflash.sar import despeckle, network
from nearflash.sar.methods import load_method
from nearflash.sar.models import build
from nearflash.sar.network import Network
from nearflash.sar.peaks import peaks_kept
from nearflash.sar.scatterers import bounded, dimmed, ground_level, keep_strong
from nearflash.sar.speckle import SystemResponse, speckled
from nearflash.sar.training.cities import city_echoes
from torch import Tensor, nn

SIDE = 128


def highest_near(image: np.ndarray) -> np.ndarray:
    padded = np.pad(image, 3, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (7, 7)).max((2, 3))


def target(decibel: float, looks: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A sinc 1.25 times oversampled, weighted, on even ground of 1 (intensity), and the distance from its peak."""
    rng = np.random.default_rng(1)
    t = np.arange(SIDE) - SIDE // 2
    line = np.sinc(t / 1.25) * np.exp(-((t / 10) ** 2))
    echo = (10 ** (decibel / 20) * np.outer(line, line)).astype(np.complex64)
    noisy = speckled(np.ones((SIDE, SIDE), np.float32), looks, rng, SystemResponse((0.8, 0.8)), echo)
    return noisy, np.hypot(t[:, None], t)


@pytest.mark.parametrize("looks", [1, 4, 30])
def test_the_ground_is_its_mean_and_targets_dont_raise_it(looks):
    noisy = np.random.default_rng(2).gamma(looks, 0.3 / looks, (200, 200)).astype(np.float32)
    even = ground_level(noisy, looks)
    assert even.mean() == pytest.approx(0.3, rel=0.25)  # the highest of four noisy halves is above the mean
    assert even.mean() > 0.3
    noisy[::20, ::20] = 3e3
    assert ground_level(noisy, looks).mean() < 1.4 * even.mean()
    assert ground_level(noisy[None], looks).shape == (1, 200, 200)


def test_a_dark_end_stored_as_zero_makes_no_targets():
    noisy = 0.16 * np.random.default_rng(7).standard_exponential((200, 200)).astype(np.float32)
    noisy[noisy < 0.16 * 0.37] = 0  # 31 %, as in an 8-bit quick-look
    kept = keep_strong(noisy, np.zeros_like(noisy), ground_level(noisy, 1), 1)
    assert (kept > 0).mean() < 2e-4


def test_the_bright_side_of_an_edge_is_ground():
    noisy = 0.1 * np.random.default_rng(3).standard_exponential((200, 200)).astype(np.float32)
    noisy[:, 100:] *= 1000
    ground = ground_level(noisy, 1)
    assert ground[20:-20, 100:103].min() > 40
    kept = keep_strong(noisy, np.zeros_like(noisy), ground, 1)
    assert (kept[20:-20, 20:-20] > 0).mean() < 1e-4


@pytest.mark.parametrize(("looks", "speckle", "scatterer"), [(1, 11.0, 14.0), (4, 9.5, 12.5), (0.5, 11.0, 14.0)])
def test_what_is_kept_depends_on_contrast_and_looks(looks, speckle, scatterer):
    decibel = np.array([[0.0, speckle - 0.01, speckle + 0.5, (speckle + scatterer) / 2, scatterer, 60.0]])
    before = (10 ** (decibel / 10)).astype(np.float32)
    share = keep_strong(before, np.zeros_like(before), np.ones_like(before), looks) / before
    assert share[0, :2].tolist() == [0, 0]
    assert 0 < share[0, 2] < share[0, 3] == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_allclose(share[0, 4:], 1, rtol=1e-6)


def test_what_a_network_sees_is_dimmed():
    before = np.array([[1.0, 90.0, 101.0, 1e8]], np.float32)
    np.testing.assert_allclose(dimmed(before, np.ones_like(before)), [[1, 90, 100, 100]])
    np.testing.assert_allclose(dimmed(before, np.ones_like(before), 10.0), [[1, 10, 10, 10]])


def test_bounded():
    before = np.random.default_rng(4).random((30, 31)).astype(np.float32)
    after = np.random.default_rng(5).random((30, 31)).astype(np.float32) * 2
    np.testing.assert_array_equal(bounded(before, after), np.minimum(after, highest_near(before)))


class Wild(nn.Module):
    """A network that makes of every pixel what it likes."""

    multiple = 32

    def forward(self, amplitude: Tensor, looks: Tensor) -> Tensor:
        return amplitude * 50 + 7


@pytest.mark.parametrize("net", ["wild", "base", "tiny", "unet", "paper"])
@pytest.mark.parametrize("decibel", [40, 80])
def test_no_network_makes_a_target_brighter_or_darker(net, decibel, monkeypatch):
    looks = 4
    if net in ("wild", "paper"):  # no weights
        torch.manual_seed(1)
        wild = Network(Wild() if net == "wild" else build("paper"), "paper")
        monkeypatch.setattr(network, "load", lambda *_, **__: wild)
    method = load_method("paper" if net == "wild" else net)
    noisy, distance = target(decibel, looks)
    out = despeckle(noisy, domain="intensity", looks=looks, method=method)
    assert (out <= highest_near(noisy) * (1 + 1e-6)).all()
    peak = distance < 2
    assert out[peak].max() == pytest.approx(noisy[peak].max(), rel=1e-3)
    if net in ("base", "tiny", "unet"):  # the ground beside it is what it is
        assert out[peak].sum() == pytest.approx(noisy[peak].sum(), rel=0.02)
        ring = (distance > 25) & (distance < 50)
        assert out[ring].mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("looks", [4, "auto"])
def test_towns_keep_their_peaks(looks):
    kept, means = [], []
    response = SystemResponse((0.77, 0.85), (0.75, 0.75))
    for seed in (0, 4):
        rng = np.random.default_rng(seed)
        echoes = city_echoes(rng, 192, response)
        town = speckled(np.full((192, 192), 0.2), 4, rng, response, echoes)
        out = despeckle(town, domain="intensity", looks=looks)
        kept.append(peaks_kept(town, out))
        means.append(out.mean() / town.mean())
    share = np.concatenate(kept)
    assert len(share) > 100
    assert np.median(share) >= 0.95
    assert np.quantile(share, 0.1) >= 0.8
    assert np.mean(means) == pytest.approx(1, abs=0.03)
