"""Values that stand for "nothing here" though no tag says so: -9999, -99 dB, 0 in floating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Fill", "find_fills"]

SHARE = 1e-3  # of the pixels: measurements in floating point hardly ever repeat
COUNT = 16  # pixels
CONTINUOUS = 0.5  # share of values in floating point that come once; of what was whole numbers once, few do
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

    A fill repeats exactly, and is the lowest or highest value, far from all others; among values that hardly ever repeat 0
    is one too. In what is or was whole numbers 0 is a quantised dark pixel as often as a border
    (:mod:`nearflash.sar.borders`).
    """
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    if not len(values):
        return []
    floating = np.dtype(dtype).kind == "f"
    candidates = {float(values.min()), float(values.max())} | ({0.0} if floating else set())
    counted = {value: int((values == value).sum()) for value in candidates}
    others = values[~np.isin(values, list(candidates))]
    if not len(others) or not any(_frequent(count, len(values)) for count in counted.values()):
        return []
    low, high = float(others.min()), float(others.max())
    levels, counts = np.unique(others, return_counts=True)
    continuous = len(levels) > CONTINUOUS * len(others)
    gap = (GAP if floating else INT_GAP) * (high - low)
    fills = []
    for value, count in sorted(counted.items()):
        zero = value == 0 and floating and continuous
        # Saturated values lie beside the others, a fill lies apart; one that is negative among none is no measurement
        apart = value < low - gap or value > high + gap or (value < 0 <= low and floating)
        if (zero or apart) and _frequent(count, len(values)) and count > RARER * int(counts.max()):
            fills.append(Fill(value, count / len(values)))
    return fills


def _frequent(count: int, of: int) -> bool:
    return count >= COUNT and count >= SHARE * of
