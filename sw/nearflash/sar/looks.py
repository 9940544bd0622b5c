"""The equivalent number of looks of an image, from the image alone, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["WINDOW", "LooksEstimate", "estimate_looks", "local_looks", "neighbour_looks"]

WINDOW = 9  # pixels on a side: 81 samples, small enough that many windows show one land cover
FEWEST, MOST = 0.5, 200.0
MISSING = 0.25  # largest share of a window's pixels that may be missing
ZEROS = 0.4  # largest share of a window's pixels that may be 0: what 8 bits make of dark single-look land
STRUCTURED = 1.2  # looks of pairs two pixels apart over those of windows: 1 on even ground, resampled or not; a town 1.3
INTERPOLATED = 1.45  # second over first differences: below, pixels two apart are compared instead of neighbours
BELOW_ONE = 0.8  # no speckle has fewer looks than one: a mode below is structure
SYSTEMATIC = 0.15  # relative, of an estimate on even ground: speckle is correlated by unknown amounts
SYSTEMATIC_TOWN = 0.4  # the same where there is none


@dataclass(frozen=True)
class LooksEstimate:
    """``looks`` lies between ``low`` and ``high`` with some 95 % probability; ``even``: whether there was even ground."""

    looks: float
    low: float
    high: float
    even: bool


def local_looks(intensity: np.ndarray) -> np.ndarray:
    """Looks in each whole :data:`WINDOW` x WINDOW window of ``intensity`` [H, W], float64 [windows].

    Windows with many zeros or missing pixels, or of one value, are left out. Maximum likelihood for Gamma speckle by the
    closed-form approximation of the equation ln L - psi(L) = ln mean - mean ln (Minka, "Estimating a Gamma distribution",
    2002), less its bias of 3 in n; where a pixel is 0, which has no logarithm, mean^2 / variance.
    """
    rows, columns = (n // WINDOW for n in intensity.shape)
    blocks = intensity[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
    samples = blocks.transpose(0, 2, 1, 3).reshape(-1, WINDOW * WINDOW).astype(np.float64)
    there = ~np.isnan(samples)
    samples = samples[there.mean(axis=1) >= 1 - MISSING]
    count = (~np.isnan(samples)).sum(axis=1)
    mean = np.nanmean(samples, axis=1)
    zeros = (samples == 0).sum(axis=1)
    whole = zeros == 0
    spread = np.log(mean[whole]) - np.nanmean(np.log(samples[whole]), axis=1)
    vary = spread > 1e-6
    spread = spread[vary]
    likely = (3 - spread + np.sqrt((3 - spread) ** 2 + 24 * spread)) / (12 * spread) * (1 - 3 / count[whole][vary])
    some = (zeros > 0) & (zeros <= ZEROS * count)
    return np.concatenate([likely, mean[some] ** 2 / np.nanvar(samples[some], axis=1)])


def neighbour_looks(intensities: list[np.ndarray], distance: int = 1) -> float | None:
    """Looks by the ratios of pixels ``distance`` apart in images [H, W]; None without enough of them.

    The lower quartile of |ln(a / b)| belongs to the pairs that show one kind of ground, which even a town has: it is that of
    the ratio of two Gamma variables of L looks, which is F distributed. Geometric mean of both directions. Correlated
    speckle makes it too high.
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    found = []
    for along in (0, 1):
        values = np.concatenate([_differences(i, along, distance) for i in intensities]) if intensities else np.empty(0)
        if len(values) < WINDOW**2:
            return None
        quartile = math.exp(min(float(np.quantile(values, 0.25)), 700.0))
        if quartile <= 1:
            return None

        def excess(log_looks: float, share: float = quartile / (1 + quartile)) -> float:
            # The F distribution of 2 L and 2 L degrees of freedom, at the quartile: half of what is below 1, and a quarter
            return float(betainc(math.exp(log_looks), math.exp(log_looks), share)) - 0.625

        ends = math.log(FEWEST / 4), math.log(MOST * 4)
        found.append(brentq(excess, *ends) if excess(ends[0]) < 0 < excess(ends[1]) else ends[excess(ends[0]) < 0])
    return math.exp(sum(found) / 2)


def _differences(intensity: np.ndarray, along: int, distance: int) -> np.ndarray:
    """|ln(a / b)| of all pairs of valid pixels ``distance`` apart: infinite where one of them is 0, none where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(intensity.astype(np.float64))
        logs = logs if along else logs.T
        differences = np.abs(logs[:, distance:] - logs[:, :-distance]).ravel()
    return differences[~np.isnan(differences)]


def _interpolated(intensities: list[np.ndarray]) -> bool:
    """Whether the images' pixels are made of each other: then a pixel lies near the middle of its neighbours, which speckle
    and structure don't. White noise has second differences sqrt(3) times as large as first ones, a map's grid 0.9 to 1.3
    times."""
    ratios = []
    for along in (0, 1):
        first, second = [], []
        for i in intensities:
            logs = np.log(np.where(i > 0, i, np.nan).astype(np.float64))
            logs = logs if along else logs.T
            first.append(np.abs(np.diff(logs)).ravel())
            second.append(np.abs(np.diff(logs, 2)).ravel())
        ratios.append(np.nanquantile(np.concatenate(second), 0.25) / np.nanquantile(np.concatenate(first), 0.25))
    return min(ratios) < INTERPOLATED


def estimate_looks(intensities: list[np.ndarray]) -> LooksEstimate | None:
    """The number of looks of images [H, W] (bands of one scene); None if there is no usable window.

    The most frequent local number of looks. Structure lowers a window's looks and never raises them, but most scenes have
    enough even ground for a clear mode (S. Anfinsen, A. Doulgeris, T. Eltoft, "Estimation of the equivalent number of looks
    in polarimetric SAR imagery", IEEE TGRS 47(11), 2009). The mode is that of a Gaussian kernel density over ln L. Where
    pixels two apart differ less than that, or the mode is below what speckle can have, most windows hold structure, and
    :func:`neighbour_looks` goes on where windows fail.

    Limits: correlated speckle varies less within a window, so its looks come out too high.
    """
    found = [local_looks(i) for i in intensities]
    looks = np.concatenate(found) if found else np.empty(0)
    if not len(looks):
        return None
    logs = np.log(np.clip(looks, FEWEST, MOST))
    mode = _mode(logs)
    near = int((np.abs(logs - math.log(mode)) < 0.3).sum())
    apart = neighbour_looks(intensities, 2)
    if mode < BELOW_ONE or (apart is not None and apart > STRUCTURED * mode):
        pairs = apart if apart is not None and _interpolated(intensities) else neighbour_looks(intensities)
        if pairs is not None and pairs > mode:
            pairs = min(pairs, MOST)
            return LooksEstimate(pairs, max(mode, pairs * (1 - SYSTEMATIC_TOWN)), pairs * (1 + SYSTEMATIC_TOWN), False)
    error = 2 * math.hypot(math.sqrt(2 / WINDOW**2 / max(near, 1)), SYSTEMATIC / 2)
    return LooksEstimate(mode, mode * (1 - error), mode * (1 + error), True)


def _mode(logs: np.ndarray) -> float:
    edges = np.linspace(np.log(FEWEST) - 1, np.log(MOST) + 1, 801)
    counts, _ = np.histogram(logs, edges)
    # Silverman's rule with the narrower of the two usual spreads: the structured windows make a long tail
    quartiles = np.percentile(logs, [25, 75])
    spread = min(float(logs.std()), float(quartiles[1] - quartiles[0]) / 1.34)
    width = max(0.9 * spread * len(logs) ** -0.2, 0.05) / (edges[1] - edges[0])
    kernel = np.exp(-0.5 * (np.arange(-int(4 * width), int(4 * width) + 1) / width) ** 2)
    density = np.convolve(counts, kernel, mode="full")[len(kernel) // 2 :][: len(counts)]
    centre = (edges[:-1] + edges[1:]) / 2
    return float(np.clip(np.exp(centre[int(np.argmax(density))]), FEWEST, MOST))
