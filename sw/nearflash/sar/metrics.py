"""How good a despeckled image is, with a reference and without.

All arithmetic is float64. NaN pixels (no data) are left out wherever a metric is a mean over pixels.

With a reference, on amplitude in [0, 1]: PSNR, SSIM, DG. Without, on intensity: ENL, Cx, the ratio image in / out (a perfect
filter leaves pure speckle: mean 1, variance 1/L), the mean kept, EPD-ROA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..contract.errors import ConfigError, DataError

__all__ = ["Window", "cx", "despeckling_gain", "enl", "epd_roa", "homogeneous_windows", "mean_kept", "mse",
           "no_reference_report", "psnr", "ratio_image", "ratio_statistics", "ssim"]

Window = tuple[slice, slice]  # rows, columns
SSIM_SIZE = 11


def _image(field: str, image: np.ndarray) -> np.ndarray:
    if np.ndim(image) != 2 or 0 in np.shape(image) or not np.issubdtype(np.asarray(image).dtype, np.number):
        raise DataError(f"{field}.shape", np.shape(image), "must be real numbers [H, W] with at least one pixel")
    if np.iscomplexobj(image):
        raise DataError(f"{field}.dtype", str(np.asarray(image).dtype), "must be real: take amplitude or intensity first")
    return np.asarray(image, np.float64)


def _pair(first: str, a: np.ndarray, second: str, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _image(first, a), _image(second, b)
    if x.shape != y.shape:
        raise DataError(f"{second}.shape", y.shape, f"must be that of {first}, {x.shape}")
    return x, y


def _valid(field: str, image: np.ndarray) -> np.ndarray:
    values = image[~np.isnan(image)]
    if values.size == 0:
        raise DataError(field, "NaN", "must hold at least one pixel that is not NaN")
    return values


def mse(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean squared error of ``image`` [H, W] against ``reference`` [H, W]. Raises DataError for shapes and all-NaN."""
    x, y = _pair("reference", reference, "image", image)
    return float(np.mean(_valid("image", x - y) ** 2))


def psnr(reference: np.ndarray, image: np.ndarray, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / MSE); infinite for equal images.

    The score of a set is the mean of its images' values, not the PSNR of the mean MSE.

    Raises:
        DataError, ConfigError: shapes differ, all pixels NaN; data_range not > 0.
    """
    if not (math.isfinite(data_range) and data_range > 0):
        raise ConfigError("data_range", data_range, "must be a finite number > 0")
    error = mse(reference, image)
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(reference: np.ndarray, image: np.ndarray, data_range: float = 1.0) -> float:
    """Structural similarity: 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, mean over whole windows only.

    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Trans. Image
    Processing 13(4), 2004. Computed by scikit-image's ``structural_similarity`` with ``gaussian_weights=True``,
    ``sigma=1.5``, ``use_sample_covariance=False``, which is that definition.

    Raises:
        DataError, ConfigError: shapes differ, a side below 11, NaN; data_range not > 0.
    """
    from skimage.metrics import structural_similarity

    x, y = _pair("reference", reference, "image", image)
    if min(x.shape) < SSIM_SIZE:
        raise DataError("image.shape", x.shape, f"must be at least {SSIM_SIZE} x {SSIM_SIZE} for SSIM")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("image", "NaN or Inf", "must be finite everywhere for SSIM, whose windows would spread it")
    if not (math.isfinite(data_range) and data_range > 0):
        raise ConfigError("data_range", data_range, "must be a finite number > 0")
    score: Any = structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                       data_range=data_range, K1=0.01, K2=0.03)
    return float(score)


def despeckling_gain(reference: np.ndarray, image_in: np.ndarray, image_out: np.ndarray) -> float:
    """DG in dB: 10 log10(MSE before / MSE after) against ``reference``.

    Source: G. Di Martino et al., "Benchmarking framework for SAR despeckling", IEEE Trans. Geoscience and Remote Sensing
    52(3), 2014.
    """
    before, after = mse(reference, image_in), mse(reference, image_out)
    if after == 0:
        return math.nan if before == 0 else math.inf
    return -math.inf if before == 0 else 10 * math.log10(before / after)


def enl(intensity: np.ndarray) -> float:
    """Equivalent number of looks of a homogeneous area [H, W]: mean^2 / variance (of the population); inf if constant."""
    values = _valid("intensity", _image("intensity", intensity))
    variance = float(values.var())
    return math.inf if variance == 0 else float(values.mean()) ** 2 / variance


def cx(intensity: np.ndarray) -> float:
    """Coefficient of variation of an area [H, W], std / mean: 1/sqrt(ENL). NaN if the mean is 0."""
    values = _valid("intensity", _image("intensity", intensity))
    mean = float(values.mean())
    return float(values.std()) / mean if mean else math.nan


def ratio_image(intensity_in: np.ndarray, intensity_out: np.ndarray) -> np.ndarray:
    """What the filter removed, in / out, float64 [H, W]; NaN where either is NaN or the output is 0."""
    x, y = _pair("intensity_in", intensity_in, "intensity_out", intensity_out)
    return np.divide(x, y, out=np.full_like(x, np.nan), where=y > 0)


def ratio_statistics(intensity_in: np.ndarray, intensity_out: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the ratio image: 1 and 1/L on a homogeneous area when only speckle was removed."""
    values = _valid("ratio", ratio_image(intensity_in, intensity_out))
    return float(values.mean()), float(values.var())


def mean_kept(intensity_in: np.ndarray, intensity_out: np.ndarray) -> float:
    """Mean of the output over mean of the input, where neither is NaN; 1 keeps the radiometry. NaN if the input is 0."""
    x, y = _pair("intensity_in", intensity_in, "intensity_out", intensity_out)
    both = ~(np.isnan(x) | np.isnan(y))
    if not both.any():
        raise DataError("intensity_in", "NaN", "must hold at least one pixel that is not NaN")
    mean = float(x[both].mean())
    return float(y[both].mean()) / mean if mean else math.nan


def epd_roa(image_in: np.ndarray, image_out: np.ndarray, direction: str = "horizontal", window: Window | None = None,
            side: int = 1) -> float:
    """Edge preservation degree based on the ratio of averages; 1 keeps the contrast between neighbours, less blurs it.

    EPD-ROA = ``sum |D1 / D2| / sum |O1 / O2|`` over all pairs of neighbours in ``direction``: D1 and D2 are the averages
    of the output on the two sides of a boundary between pixels, O1 and O2 those of the input. Source: H. Feng, B. Hou,
    M. Gong, "SAR image despeckling based on local homogeneous-region segmentation by using pixel-relativity measurement",
    IEEE Trans. Geoscience and Remote Sensing 49(7), 2011.

    By convention the averages are of single pixels (``side=1``), in a ``window`` around edges. At few looks the speckle
    itself has large ratios: where nothing but single-look speckle is removed, amplitude gives 2 / pi = 0.64, and for
    intensity the expectation of the denominator doesn't even exist. So give amplitude, and a window on an edge; or
    ``side`` = 3, which averages 3 x 5 pixels on either side and so sees the edges through the speckle.

    Args:
        image_in, image_out: [H, W], amplitude (or intensity of many looks). Pairs with NaN or 0 in either are left out.
        direction: ``horizontal`` (neighbours in a row: vertical edges) or ``vertical``.
        window: rows and columns to look at; default all.
        side: pixels averaged across the boundary, 2 side - 1 along it.

    Raises:
        DataError, ConfigError: shapes differ, window too small, no valid pair; unknown direction, side below 1.
    """
    x, y = _pair("image_in", image_in, "image_out", image_out)
    if direction not in ("horizontal", "vertical"):
        raise ConfigError("direction", direction, "must be horizontal or vertical")
    if side < 1:
        raise ConfigError("side", side, "must be at least 1")
    if window is not None:
        x, y = x[window], y[window]
    if direction == "vertical":
        x, y = x.T, y.T
    if x.shape[0] < 2 * side - 1 or x.shape[1] < 2 * side:
        raise DataError("window", x.shape, f"must be at least {2 * side - 1} pixels along and {2 * side} across boundaries")

    def sides(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = np.lib.stride_tricks.sliding_window_view(image, (2 * side - 1, side))
        means = views.mean((2, 3))
        return means[:, :-side], means[:, side:]

    (o1, o2), (d1, d2) = sides(x), sides(y)
    valid = (o1 > 0) & (o2 > 0) & (d1 > 0) & (d2 > 0)  # false for NaN
    if not valid.any():
        raise DataError("window", x.shape, "must hold at least one pair of neighbours that are neither NaN nor 0")
    return float(np.abs(d1[valid] / d2[valid]).sum() / np.abs(o1[valid] / o2[valid]).sum())


def homogeneous_windows(intensity: np.ndarray, size: int = 32, count: int = 8, block: int = 4) -> list[Window]:
    """The ``count`` most homogeneous of all whole ``size`` x ``size`` tiles of ``intensity`` [H, W], best first.

    Tiles are ranked by the coefficient of variation of their ``block`` x ``block`` means. That sees structure through
    speckle; ranking by the pixels themselves would choose the tiles whose speckle happens to vary least and so
    overestimate the ENL. Tiles with a NaN, a mean of 0 or constant pixels (fill, saturation) are never chosen.
    The list is shorter, or empty, where there are fewer such tiles.

    Raises:
        DataError, ConfigError: not [H, W]; size not a multiple of block, or below 2 blocks; count below 1.
    """
    image = _image("intensity", intensity)
    if block < 1 or size < 2 * block or size % block:
        raise ConfigError("size", size, f"must be a multiple of block = {block} and at least two blocks")
    if count < 1:
        raise ConfigError("count", count, "must be at least 1")
    h, w = image.shape[0] // size, image.shape[1] // size
    n = size // block
    tiles = image[: h * size, : w * size].reshape(h, size, w, size).swapaxes(1, 2)
    means = tiles.reshape(h, w, n, block, n, block).mean((3, 5)).reshape(h, w, n * n)
    mean = means.mean(2)
    usable = (mean > 0) & (tiles.max((2, 3)) > tiles.min((2, 3))) if h and w else np.zeros((h, w), bool)
    variation = np.full((h, w), np.inf)
    np.divide(means.std(2), mean, out=variation, where=usable)
    order = np.argsort(variation, axis=None, kind="stable")[: min(count, int(usable.sum()))]
    corners = [(size * (k // w), size * (k % w)) for k in order.tolist()]
    return [(slice(i, i + size), slice(j, j + size)) for i, j in corners]


def no_reference_report(intensity_in: np.ndarray, intensity_out: np.ndarray, looks: float,
                        windows: Sequence[Window] | None = None, size: int = 32) -> dict[str, Any]:
    """Every metric that needs no reference, as plain values for JSON.

    ENL, Cx and ratio statistics are medians over ``windows`` (rows and columns; default: found by
    :func:`homogeneous_windows` on the input, tiles of ``size``, or the whole image where there is none); the mean kept and
    EPD-ROA (on amplitude) are of the whole image. ``ratio_variance_over_input`` divides each window's ratio variance by the
    input's own relative variance there, which is 1/``looks`` only where speckle is fully developed and neither resampled nor
    cut off: 1 for a filter that takes away all of it, less for one that follows it. A value that is undefined (no pair of
    neighbours in an image of one pixel) or infinite (ENL of a constant) is None.

    Raises:
        DataError, ConfigError: shapes differ, all NaN; looks not > 0.
    """
    x, y = _pair("intensity_in", intensity_in, "intensity_out", intensity_out)
    if not (math.isfinite(looks) and looks > 0):
        raise ConfigError("looks", looks, "must be a finite number > 0")
    found = list(windows) if windows is not None else homogeneous_windows(x, size)
    areas = found or [(slice(None), slice(None))]

    def over(metric: Callable[[Window], float]) -> float:
        return float(np.median([metric(a) for a in areas]))

    def edges(direction: str, side: int) -> float:
        try:
            return epd_roa(np.sqrt(x), np.sqrt(y), direction, side=side)
        except DataError:
            return math.nan

    before, after = over(lambda a: enl(x[a])), over(lambda a: enl(y[a]))
    report = {
        "looks": looks,
        "windows_count": len(found),
        "enl_in": before, "enl_out": after, "enl_gain": after / before if before else math.nan,
        "cx_in": over(lambda a: cx(x[a])), "cx_out": over(lambda a: cx(y[a])),
        "ratio_mean": over(lambda a: ratio_statistics(x[a], y[a])[0]),
        "ratio_variance": over(lambda a: ratio_statistics(x[a], y[a])[1]),
        "ratio_variance_expected": 1 / looks,
        "ratio_variance_over_input": over(lambda a: ratio_statistics(x[a], y[a])[1] * enl(x[a])),
        "mean_kept": mean_kept(x, y),
        "epd_roa_horizontal": edges("horizontal", 1), "epd_roa_vertical": edges("vertical", 1),
        "epd_roa_side3_horizontal": edges("horizontal", 3), "epd_roa_side3_vertical": edges("vertical", 3),
    }
    # JSON has neither infinity nor NaN
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in report.items()}
