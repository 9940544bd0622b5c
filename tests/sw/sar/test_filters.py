"""Classical filters against slow loops over windows, theory on pure speckle, and each other on an image."""

import math

import numpy as np
import pytest
from nearflash.contract import ConfigError, DataError
from nearflash.sar import filters, methods
from nearflash.sar.filters.homomorphic import filter_log
from scipy.special import digamma, polygamma


def speckle(shape: tuple[int, int], looks: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


def scene(looks: float, seed: int = 0) -> np.ndarray:
    clean = np.full((24, 20), 0.2)
    clean[:, 9:] = 1.0
    clean[15, 5] = 30
    return (clean * speckle(clean.shape, looks, seed)).astype(np.float32)


def windows(z: np.ndarray, size: int = 7):
    """(i, j, window) with mirrored borders."""
    r = size // 2
    p = np.pad(z.astype(np.float64), r, mode="symmetric")
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            yield i, j, p[i : i + size, j : j + size]


def slow(z: np.ndarray, looks: float, pixel) -> np.ndarray:
    out = np.empty(z.shape)
    for i, j, w in windows(z):
        out[i, j] = pixel(float(z[i, j]), w, looks)
    return out


def lee_pixel(z: float, w: np.ndarray, looks: float) -> float:
    m, cu2 = w.mean(), 1 / looks
    q = max((w.var() + m * m) / (1 + cu2) - m * m, 0)  # Lee 1980, with speckle of mean 1
    return m + (z - m) * q / (m * m * cu2 + q)


def kuan_pixel(z: float, w: np.ndarray, looks: float) -> float:
    m, cu2 = w.mean(), 1 / looks
    ci2 = w.var() / m**2
    return m + max((1 - cu2 / ci2) / (1 + cu2), 0) * (z - m)


def frost_pixel(z: float, w: np.ndarray, looks: float) -> float:
    a = 0.5 * looks * w.var() / w.mean() ** 2
    weights = np.array([[math.exp(-a * math.hypot(i, j)) for j in range(-3, 4)] for i in range(-3, 4)])
    return float((weights * w).sum() / weights.sum())


def gamma_map_pixel(z: float, w: np.ndarray, looks: float) -> float:
    m, cu = w.mean(), 1 / math.sqrt(looks)
    ci = w.std() / m
    if ci <= cu:
        return m
    if ci >= math.sqrt(2) * cu:
        return z
    alpha = (1 + cu**2) / (ci**2 - cu**2)
    return float(max(np.roots([alpha, (1 + looks - alpha) * m, -looks * m * z]).real))


SIDES = {  # which pixels of the window count, from row i and column j in -3..3
    ("|", 0): lambda i, j: j <= 0, ("|", 1): lambda i, j: j >= 0,
    ("-", 0): lambda i, j: i <= 0, ("-", 1): lambda i, j: i >= 0,
    ("/", 0): lambda i, j: i + j <= 0, ("/", 1): lambda i, j: i + j >= 0, ("\\", 0): lambda i, j: i - j <= 0,
    ("\\", 1): lambda i, j: i - j >= 0}


def refined_lee_pixel(z: float, w: np.ndarray, looks: float) -> float:
    cu2 = 1 / looks
    if w.var() <= cu2 * w.mean() ** 2:
        return w.mean()
    s = np.array([[w[i : i + 3, j : j + 3].mean() for j in (0, 2, 4)] for i in (0, 2, 4)])
    gradient = {"|": s[:, 2].sum() - s[:, 0].sum(), "/": s[1, 2] + s[2, 1] + s[2, 2] - s[0, 0] - s[0, 1] - s[1, 0],
                "-": s[2].sum() - s[0].sum(), "\\": s[1, 0] + s[2, 0] + s[2, 1] - s[0, 1] - s[0, 2] - s[1, 2]}
    edge = max(gradient, key=lambda e: abs(gradient[e]))
    ends = {"|": (s[1, 0], s[1, 2]), "/": (s[0, 0], s[2, 2]), "-": (s[0, 1], s[2, 1]), "\\": (s[0, 2], s[2, 0])}[edge]
    side = int(abs(ends[1] - s[1, 1]) < abs(ends[0] - s[1, 1]))
    half = np.array([w[i + 3, j + 3] for i in range(-3, 4) for j in range(-3, 4) if SIDES[edge, side](i, j)])
    assert half.size == 28
    m, v = half.mean(), half.var()
    return m + (z - m) * max((v - m * m * cu2) / (1 + cu2), 0) / v


@pytest.mark.parametrize("looks", [1, 4, 2.5])
@pytest.mark.parametrize(("name", "pixel"), [("lee", lee_pixel), ("kuan", kuan_pixel), ("frost", frost_pixel),
                                             ("gamma-map", gamma_map_pixel), ("refined-lee", refined_lee_pixel)])
def test_filter_is_its_formula_in_every_window(name: str, pixel, looks: float) -> None:
    z = scene(looks)
    np.testing.assert_allclose(filters.FILTERS[name].apply(z, looks), slow(z, looks, pixel), rtol=2e-5)


@pytest.mark.parametrize("looks", [1, 3])
def test_log_filters_get_unbiased_logs_and_the_right_sigma(looks: int) -> None:
    seen = {}

    def denoise(log: np.ndarray, sigma: float) -> np.ndarray:
        seen.update(log=log, sigma=sigma)
        return np.full_like(log, log.mean())

    z = 5 * speckle((400, 400), looks)
    out = filter_log(z, looks, denoise)
    assert seen["log"].mean() == pytest.approx(math.log(5), abs=0.01)
    assert seen["sigma"] == pytest.approx(seen["log"].std(), rel=0.01)
    assert seen["sigma"] ** 2 == pytest.approx(float(polygamma(1, looks)))
    np.testing.assert_allclose(out, 5, rtol=0.01)
    assert np.log(z).mean() == pytest.approx(math.log(5) + float(digamma(looks)) - math.log(looks), abs=0.01)


def test_zeros_are_raised_before_the_logarithm() -> None:
    seen = {}

    def denoise(log: np.ndarray, sigma: float) -> np.ndarray:
        seen.update(log=log)
        return log

    z = speckle((40, 40), 1)
    z[20, 20] = 0
    out = filter_log(z, 1, denoise)
    floor = 0.001 * z[17:24, 17:24].mean(dtype=np.float64)
    assert seen["log"][20, 20] == pytest.approx(math.log(floor) + np.euler_gamma)
    kept = z > 0.01
    np.testing.assert_allclose(out[kept], z[kept] * np.exp(np.euler_gamma), rtol=1e-5)


@pytest.mark.parametrize("name", methods.FILTER_NAMES)
def test_homogeneous_speckle(name: str) -> None:
    looks = 4
    if name == "bm3d":
        pytest.importorskip("bm3d")
    z = 100 * speckle((96, 96), looks, seed=3)
    out = filters.FILTERS[name].apply(z, looks).astype(np.float64)
    inner = out[8:-8, 8:-8]
    assert inner.mean() == pytest.approx(float(z[8:-8, 8:-8].mean()), rel=0.05)
    assert inner.mean() ** 2 / inner.var() > 8 * looks


@pytest.mark.parametrize("name", [*methods.FILTER_NAMES, "none"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (17, 33)])
def test_any_size_positive_deterministic_scalable(name: str, shape: tuple[int, int]) -> None:
    if name == "bm3d":
        pytest.importorskip("bm3d")
    run = methods.load_method(name)
    z = speckle(shape, 1, seed=5)
    z[0, 0] = 0
    out = methods.apply_method(run, z, 1.0)
    assert out.shape == shape
    assert out.dtype == np.float32
    assert (out > 0).all()
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out, methods.apply_method(run, z, 1.0))
    z = speckle(shape, 1, seed=5)
    big = methods.apply_method(run, 2.0**20 * z, 1.0)
    np.testing.assert_allclose(big, 2.0**20 * methods.apply_method(run, z, 1.0), rtol=1e-3)


def test_a_bright_target_leaves_its_line_alone() -> None:
    z = speckle((15, 200), 4)
    bright = z.copy()
    bright[7, 5] = 1e12
    for name in ("lee", "refined-lee", "kuan", "frost", "gamma-map"):
        f = filters.FILTERS[name]
        np.testing.assert_array_equal(f.apply(bright, 4)[:, 20:], f.apply(z, 4)[:, 20:])


def test_margin_is_enough_context() -> None:
    z = scene(1)
    for name in ("lee", "refined-lee", "kuan", "frost", "gamma-map"):
        f = filters.FILTERS[name]
        part = f.apply(z[:, : 8 + f.margin], 1)[:, :8]
        np.testing.assert_allclose(part, f.apply(z, 1)[:, :8], rtol=1e-6)


def test_order_on_an_image() -> None:
    """On structure under speckle every filter gains, and the non-local one beats the local one at 4 looks."""
    i, j = np.mgrid[:96, :96]
    clean = 0.2 + 0.6 * ((i // 24 + j // 24) % 2)
    z = (clean**2 * speckle(clean.shape, 4)).astype(np.float32)

    def error(image: np.ndarray) -> float:
        return float(np.mean((np.sqrt(image) - clean) ** 2))

    errors = {n: error(filters.FILTERS[n].apply(z, 4)) for n in ("lee", "refined-lee", "kuan", "frost", "gamma-map", "nlm")}
    assert max(errors.values()) < error(z) / 1.5
    assert errors["nlm"] < errors["lee"]
    assert errors["refined-lee"] < errors["lee"]


def test_bad_parameters_are_named() -> None:
    z = speckle((8, 8), 1)
    with pytest.raises(DataError, match=r"intensity.shape = \(2, 8, 8\)"):
        filters.lee(np.stack([z, z]), 1)
    with pytest.raises(ConfigError, match="looks = 0"):
        filters.kuan(z, 0)
    with pytest.raises(ConfigError, match="size = 4"):
        filters.lee(z, 1, size=4)
    with pytest.raises(ConfigError, match="damping"):
        filters.frost(z, 1, damping=-1)
    with pytest.raises(ConfigError, match="patch_size"):
        filters.nlm(z, 1, patch_size=0)


def test_methods_by_name() -> None:
    with pytest.raises(ConfigError, match=r"base, tiny, paper, unet, lee, .*, bm3d, nlm, none"):
        methods.load_method("median")
    with pytest.raises(ConfigError, match="checkpoint"):
        methods.load_method("lee", checkpoint=methods.Path("x.pt"))
    with pytest.raises(ConfigError, match="device"):
        methods.load_method("lee", device="cuda")
    assert set(methods.FILTER_NAMES) == set(filters.FILTERS)
    lee = methods.load_method("lee")
    assert (lee.name, lee.margin, lee.multiple, lee.scene_scale) == ("lee", 3, 1, False)
    for bad in (np.full((4, 4), np.nan), np.full((4, 4), -1.0), np.full((4, 4), np.inf)):
        with pytest.raises(DataError, match="finite and >= 0"):
            methods.apply_method(lee, bad, 1)
    with pytest.raises(DataError, match="shape"):
        methods.apply_method(lee, np.ones((0, 4)), 1)


def test_padding_to_the_multiple_and_back() -> None:
    shapes = []

    def note(intensity: np.ndarray, looks: float) -> np.ndarray:
        shapes.append(intensity.shape)
        return intensity * 2

    run = methods.Method("note", 0, 32, False, note)
    z = speckle((33, 5), 1)
    np.testing.assert_array_equal(methods.apply_method(run, z, 1), 2 * z)
    assert shapes == [(64, 32)]


def test_self_ensemble_is_the_mean_amplitude_of_eight_views() -> None:
    seen = []

    def corner(intensity: np.ndarray, looks: float) -> np.ndarray:
        """Depends on the orientation: a gain that grows with the row."""
        seen.append(intensity.copy())
        return intensity * (1 + np.arange(len(intensity), dtype=np.float32))[:, None] ** 2

    run = methods.self_ensemble(methods.Method("corner", 0, 1, False, corner))
    z = np.array([[1.0, 4.0], [9.0, 16.0]], np.float32)
    # Rows 1 and 2 have amplitude gains 1 and 2, and each pixel is in either row in half of the views
    np.testing.assert_allclose(run(z, 1.0), (np.sqrt(z) * 1.5) ** 2, rtol=1e-6)
    assert len({v.tobytes() for v in seen}) == 8
    assert run.details["self_ensemble"] == 8
