"""Metrics against slow loops, hand calculation and theory."""

import math

import numpy as np
import pytest
from nearflash.contract import ConfigError, DataError
from nearflash.sar import metrics


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, window by window."""
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / g.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
            cov = (w * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_psnr_by_hand() -> None:
    clean = np.zeros((2, 2))
    image = np.array([[0.1, 0.1], [0.1, 0.3]])  # MSE (3 * 0.01 + 0.09) / 4 = 0.03
    assert metrics.psnr(clean, image) == pytest.approx(10 * math.log10(1 / 0.03))
    assert metrics.psnr(clean, image, data_range=255) == pytest.approx(10 * math.log10(255**2 / 0.03))
    image[1, 1] = np.nan  # no data: not counted
    assert metrics.psnr(clean, image) == pytest.approx(20)
    assert metrics.psnr(clean, clean) == math.inf


def test_despeckling_gain_by_hand() -> None:
    clean = np.zeros((3, 3))
    assert metrics.despeckling_gain(clean, np.full((3, 3), 0.2), np.full((3, 3), 0.02)) == pytest.approx(20)
    assert metrics.despeckling_gain(clean, clean + 0.1, clean) == math.inf


def test_ssim_is_the_published_definition() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((19, 23))
    y = np.clip(x + 0.2 * rng.standard_normal(x.shape), 0, 1)
    assert metrics.ssim(x, y) == pytest.approx(ssim_by_hand(x, y), abs=1e-9)
    assert metrics.ssim(x, x) == pytest.approx(1)


@pytest.mark.parametrize("looks", [1, 4])
def test_speckle_statistics_are_those_of_theory(looks: int) -> None:
    speckle = np.random.default_rng(1).gamma(looks, 1 / looks, (512, 512))
    assert metrics.enl(7 * speckle) == pytest.approx(looks, rel=0.02)
    assert metrics.cx(7 * speckle) == pytest.approx(1 / math.sqrt(looks), rel=0.01)
    mean, variance = metrics.ratio_statistics(7 * speckle, np.full(speckle.shape, 7.0))
    assert mean == pytest.approx(1, abs=0.01)
    assert variance == pytest.approx(1 / looks, rel=0.02)


def test_small_values_by_hand() -> None:
    a = np.array([[1.0, 3.0], [np.nan, 2.0]])
    assert metrics.enl(a) == pytest.approx(4 / (2 / 3))
    assert metrics.cx(a) == pytest.approx(math.sqrt(2 / 3) / 2)
    assert metrics.enl(np.ones((2, 2))) == math.inf
    b = np.array([[2.0, 1.0], [5.0, 0.0]])
    np.testing.assert_array_equal(metrics.ratio_image(a, b), [[0.5, 3.0], [np.nan, np.nan]])
    assert metrics.mean_kept(a, b) == pytest.approx(3 / 6)


def test_epd_roa_by_hand() -> None:
    noisy = np.array([[1.0, 2.0, 4.0], [8.0, 4.0, 1.0]])
    out = np.array([[1.0, 1.0, 2.0], [4.0, 4.0, 2.0]])
    horizontal = (1 + 1 / 2 + 1 + 2) / (1 / 2 + 1 / 2 + 2 + 4)
    vertical = (1 / 4 + 1 / 4 + 1) / (1 / 8 + 1 / 2 + 4)
    assert metrics.epd_roa(noisy, out) == pytest.approx(horizontal)
    assert metrics.epd_roa(noisy, out, "vertical") == pytest.approx(vertical)
    assert metrics.epd_roa(noisy, out, window=(slice(1, 2), slice(0, 2))) == pytest.approx(1 / 2)
    noisy[0, 0] = np.nan  # one pair fewer
    assert metrics.epd_roa(noisy, out) == pytest.approx((1 / 2 + 1 + 2) / (1 / 2 + 2 + 4))


def test_epd_roa_of_averages_by_loop() -> None:
    rng = np.random.default_rng(2)
    noisy, out = rng.random((9, 11)) + 0.1, rng.random((9, 11)) + 0.1
    total = [0.0, 0.0]
    for k, image in enumerate((out, noisy)):
        for i in range(2, 7):
            for j in range(3, 9):  # the boundary lies left of column j
                total[k] += image[i - 2 : i + 3, j - 3 : j].mean() / image[i - 2 : i + 3, j : j + 3].mean()
    assert metrics.epd_roa(noisy, out, side=3) == pytest.approx(total[0] / total[1])
    assert metrics.epd_roa(noisy.T, out.T, "vertical", side=3) == pytest.approx(total[0] / total[1])


def test_epd_roa_sees_a_blurred_edge_through_speckle() -> None:
    from scipy.ndimage import uniform_filter

    clean = np.ones((64, 64))
    clean[:, :32] = 10
    noisy = clean * np.sqrt(np.random.default_rng(3).gamma(1, 1, clean.shape))
    edge = (slice(0, 64), slice(28, 36))
    assert metrics.epd_roa(noisy, clean, window=edge, side=3) == pytest.approx(1, abs=0.12)
    assert metrics.epd_roa(noisy, uniform_filter(clean, 9), window=edge, side=3) < 0.6


def test_removed_single_look_speckle_gives_2_over_pi_on_amplitude() -> None:
    # E[a1] E[1/a2] = sqrt(pi)/2 * sqrt(pi) for independent Rayleigh amplitudes of unit mean square
    noisy = np.sqrt(np.random.default_rng(4).gamma(1, 1, (600, 600)))
    assert metrics.epd_roa(noisy, np.ones_like(noisy)) == pytest.approx(2 / math.pi, rel=0.02)


def test_homogeneous_windows_avoid_edges_fill_and_missing_pixels() -> None:
    rng = np.random.default_rng(5)
    scene = np.ones((130, 130))
    scene[:32, 16:] = 20  # an edge in tile (0, 0)
    image = scene * rng.gamma(1, 1, scene.shape)
    image[40, 40] = np.nan  # tile (1, 1)
    image[64:96, 64:96] = 5  # constant: tile (2, 2)
    image[96:128, 0:32] = 0  # tile (3, 0)
    image[70, 100] = 1e5  # a point target: tile (2, 3)
    found = metrics.homogeneous_windows(image, size=32, count=100)
    tiles = [(r.start // 32, c.start // 32) for r, c in found]
    assert len(tiles) == 16 - 3
    assert not {(1, 1), (2, 2), (3, 0)} & set(tiles)
    assert set(tiles[-2:]) == {(0, 0), (2, 3)}  # the least homogeneous come last
    assert all(r.stop - r.start == c.stop - c.start == 32 for r, c in found)
    best = metrics.homogeneous_windows(rng.gamma(1, 1, (512, 512)), count=8)
    assert np.median([metrics.enl(rng.gamma(1, 1, (512, 512))[w]) for w in best]) == pytest.approx(1, rel=0.1)


def test_choosing_windows_hardly_favours_low_speckle() -> None:
    image = np.random.default_rng(6).gamma(1, 1, (1024, 1024))
    found = metrics.homogeneous_windows(image, count=20)
    assert np.median([metrics.enl(image[w]) for w in found]) == pytest.approx(1, rel=0.08)


def test_report_of_a_perfect_filter() -> None:
    speckle = np.random.default_rng(7).gamma(4, 1 / 4, (256, 256))
    report = metrics.no_reference_report(3 * speckle, np.full(speckle.shape, 3.0), 4)
    assert report["ratio_mean"] == pytest.approx(1, abs=0.03)
    assert report["ratio_variance"] == pytest.approx(0.25, rel=0.1)
    assert report["ratio_variance_expected"] == 0.25
    assert report["ratio_variance_over_input"] == pytest.approx(1, abs=0.05)
    assert report["enl_in"] == pytest.approx(4, rel=0.1)
    assert report["enl_out"] is None  # infinite: JSON can't hold it
    assert report["cx_out"] == 0
    assert report["mean_kept"] == pytest.approx(1, abs=0.01)
    assert report["windows_count"] == 8


def test_report_of_one_pixel_and_of_an_unchanged_image() -> None:
    one = metrics.no_reference_report(np.ones((1, 1)), np.ones((1, 1)), 1)
    assert one["epd_roa_horizontal"] is None
    assert one["windows_count"] == 0
    image = np.random.default_rng(8).gamma(1, 1, (64, 64))
    same = metrics.no_reference_report(image, image, 1)
    for key in ("enl_gain", "ratio_mean", "mean_kept", "epd_roa_vertical", "epd_roa_side3_horizontal"):
        assert same[key] == pytest.approx(1)
    assert same["ratio_variance"] == pytest.approx(0)
    assert same["ratio_variance_over_input"] == pytest.approx(0)


def test_bad_input_is_named() -> None:
    a = np.ones((12, 12))
    with pytest.raises(DataError, match=r"image\.shape = \(3, 12\).*\(12, 12\)"):
        metrics.psnr(a, a[:3])
    with pytest.raises(DataError, match=r"reference\.shape"):
        metrics.mse(np.ones(4), a)
    with pytest.raises(DataError, match="must be real"):
        metrics.enl(a * 1j)
    with pytest.raises(DataError, match="not NaN"):
        metrics.enl(a * np.nan)
    with pytest.raises(DataError, match="at least 11 x 11"):
        metrics.ssim(a[:5], a[:5])
    with pytest.raises(DataError, match="finite everywhere"):
        metrics.ssim(a, a * np.nan)
    with pytest.raises(ConfigError, match="data_range"):
        metrics.psnr(a, a, 0)
    with pytest.raises(ConfigError, match="horizontal or vertical"):
        metrics.epd_roa(a, a, "diagonal")
    with pytest.raises(DataError, match="window"):
        metrics.epd_roa(a, a, window=(slice(0, 1), slice(0, 1)))
    with pytest.raises(ConfigError, match="looks"):
        metrics.no_reference_report(a, a, 0)
    with pytest.raises(ConfigError, match="size"):
        metrics.homogeneous_windows(a, size=6)
