"""Values that stand for "nothing here" though no tag says so: -9999, -99 dB, 0 in floating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Fill", "find_fills"]

SHARE = 1e-3  # of the pixels: measurements in floating point hardly ever repeat
COUNT = 16  # pixels
RARER = 5  # times less often than a fill every other value must come
GAP = 3.0  # times the width of the other values, between them and a fill
INT_GAP = 1.0  # whole numbers repeat, so the gap must say it


@dataclass(frozen=True)
class Fill:
    """``share``: of the sampled pixels."""

    value: float
    share: float


def find_fills(sample: list[np.ndarray], dtype: str) -> list[Fill]:
    """Undeclared fills among the values of real images [H, W] (NaN missing) whose file holds ``dtype``.

    A fill repeats exactly, and is the lowest or highest value, far from all others; in floating point 0 is one too.
    Whole numbers' 0 beside others is a quantised dark pixel as often as a border (:mod:`nearflash.sar.borders`).
    """
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    if not len(values):
        return []
    floating = np.dtype(dtype).kind == "f"
    candidates = {float(values.min()), float(values.max())} | ({0.0} if floating else set())
    others = values[~np.isin(values, list(candidates))]
    if not len(others):
        return []
    low, high = float(others.min()), float(others.max())
    gap = (GAP if floating else INT_GAP) * (high - low)
    fills = []
    for value in sorted(candidates):
        count = int((values == value).sum())
        zero = value == 0 and floating
        # Saturated values lie beside the others, a fill lies apart; one that is negative among none is no measurement
        apart = value < low - gap or value > high + gap or (value < 0 <= low and floating)
        if (zero or apart) and _frequent(count, len(values)) and not _quantised(others, count):
            fills.append(Fill(value, count / len(values)))
    return fills


def _frequent(count: int, of: int) -> bool:
    return count >= COUNT and count >= SHARE * of


def _quantised(others: np.ndarray, count: int) -> bool:
    """Whether ``others`` repeat like a value that comes ``count`` times, which then is one of many steps."""
    return int(np.unique(others, return_counts=True)[1].max()) * RARER > count
