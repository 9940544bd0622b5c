"""Simulated speckle has the statistics the theory asks for."""

import numpy as np
import pytest
from nearflash.contract.errors import DataError
from nearflash.sar.speckle import SystemResponse, speckled
from scipy import stats


@pytest.mark.parametrize("looks", [1, 2.5, 4, 16])
def test_white_speckle_is_gamma(looks):
    noisy = speckled(np.full((200, 200), 3.0, np.float32), looks, np.random.default_rng(1))
    assert noisy.dtype == np.float32
    assert stats.kstest(noisy.ravel(), stats.gamma(looks, scale=3.0 / looks).cdf).pvalue > 1e-3


@pytest.mark.parametrize("looks", [1, 3])
def test_correlated_speckle_keeps_the_marginal(looks):
    response = SystemResponse((0.6, 0.8), (0.7, 1.0))
    noisy = speckled(np.ones((256, 256), np.float32), looks, np.random.default_rng(2), response)
    assert abs(noisy.mean() - 1) < 0.03
    assert abs(noisy.var() * looks - 1) < 0.08
    sparse = noisy[::8, ::8].ravel()  # far enough apart to be independent
    assert stats.kstest(sparse, stats.gamma(looks, scale=1 / looks).cdf).pvalue > 1e-3


def test_correlation_follows_the_response():
    """A rectangular band b has the field's autocorrelation sinc(b n); the intensity's is its square (Siegert)."""
    response = SystemResponse((0.5, 1.0))
    flat = np.ones((256, 256), np.float32)
    x = np.mean([correlation(speckled(flat, 1, np.random.default_rng(s), response)) for s in range(4)], 0)
    np.testing.assert_allclose(x[0], np.sinc(0.5 * np.arange(1, 4)) ** 2, atol=0.02)
    np.testing.assert_allclose(x[1], 0, atol=0.02)


def correlation(image):
    z = image - image.mean()
    return [[np.mean(z[:-n] * z[n:]) / np.mean(z * z) for n in (1, 2, 3)],
            [np.mean(z[:, :-n] * z[:, n:]) / np.mean(z * z) for n in (1, 2, 3)]]


def test_point_targets_stay():
    targets = np.zeros((32, 32), np.complex64)
    targets[9, 11] = 30j
    noisy = speckled(np.full((32, 32), 0.01, np.float32), 1, np.random.default_rng(0), None, targets)
    assert abs(noisy[9, 11] / 900 - 1) < 0.05
    assert noisy[0].max() < 1


def test_scene_scales_the_speckle():
    clean = np.ones((64, 64), np.float32)
    clean[:, 32:] = 100
    a = speckled(clean, 2, np.random.default_rng(5))
    b = speckled(np.ones_like(clean), 2, np.random.default_rng(5))
    np.testing.assert_allclose(a / b, clean, rtol=1e-5)


@pytest.mark.parametrize("looks", [0, -1, np.nan, np.inf])
def test_bad_looks(looks):
    with pytest.raises(DataError, match="looks"):
        speckled(np.ones((4, 4), np.float32), looks, np.random.default_rng(0))


def test_bad_response():
    with pytest.raises(DataError, match=r"response\.bandwidth"):
        SystemResponse((0.0, 1.0))
    with pytest.raises(DataError, match=r"response\.taper"):
        SystemResponse((1.0, 1.0), (0.3, 1.0))
    with pytest.raises(DataError, match="whole number"):
        speckled(np.ones((4, 4), np.float32), 1.5, np.random.default_rng(0), SystemResponse((1.0, 1.0)))
