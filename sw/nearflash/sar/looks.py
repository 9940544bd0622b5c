"""The equivalent number of looks of an image, from the image alone."""

from __future__ import annotations

import numpy as np

__all__ = ["WINDOW", "estimate_looks", "local_looks"]

WINDOW = 9  # pixels on a side: 81 samples, small enough that many windows show one land cover
FEWEST, MOST = 0.5, 200.0


def local_looks(intensity: np.ndarray) -> np.ndarray:
    """Looks in each whole :data:`WINDOW` x WINDOW window of ``intensity`` [H, W], float64 [windows].

    Windows with a missing or zero pixel, or of one value, are left out. Maximum likelihood for Gamma speckle by the
    closed-form approximation of the equation ln L - psi(L) = ln mean - mean ln (Minka, "Estimating a Gamma distribution",
    2002), less its bias of 3 in n.
    """
    rows, columns = (n // WINDOW for n in intensity.shape)
    blocks = intensity[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
    samples = blocks.transpose(0, 2, 1, 3).reshape(-1, WINDOW * WINDOW).astype(np.float64)
    samples = samples[(samples > 0).all(axis=1)]
    spread = np.log(samples.mean(axis=1)) - np.log(samples).mean(axis=1)
    spread = spread[spread > 1e-6]
    likely = (3 - spread + np.sqrt((3 - spread) ** 2 + 24 * spread)) / (12 * spread)
    return likely * (1 - 3 / WINDOW**2)


def estimate_looks(intensities: list[np.ndarray]) -> float | None:
    """The most frequent local number of looks of images [H, W] (bands of one scene); None if there is no usable window.

    Structure lowers a window's looks and never raises them, but most scenes have enough even ground for a clear mode
    (S. Anfinsen, A. Doulgeris, T. Eltoft, "Estimation of the equivalent number of looks in polarimetric SAR imagery", IEEE
    TGRS 47(11), 2009). The mode is that of a Gaussian kernel density over ln L.

    Limits: correlated speckle varies less within a window, so its looks come out too high; a scene that is structured
    everywhere gives too few looks.
    """
    found = [local_looks(i) for i in intensities]
    looks = np.concatenate(found) if found else np.empty(0)
    if not len(looks):
        return None
    logs = np.log(np.clip(looks, FEWEST, MOST))
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
