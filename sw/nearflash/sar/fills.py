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
    Unsigned whole numbers have no fill of 0: it is a quantised dark pixel as often as a border
    (:mod:`nearflash.sar.borders`).
    """
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    kind = np.dtype(dtype).kind
    fills: list[Fill] = []
    if kind == "f":
        zeros = int((values == 0).sum())
        if _frequent(zeros, len(values)) and zeros < len(values) and not _quantised(values[values != 0], zeros):
            fills.append(Fill(0.0, zeros / len(values)))
    for lowest in (True, False):
        others = values[~np.isin(values, [f.value for f in fills])]
        if not len(others):
            continue
        extreme = others.min() if lowest else others.max()
        rest = others[others != extreme]
        count = len(others) - len(rest)
        if not _frequent(count, len(values)) or not len(rest) or (kind in "ub" and extreme == 0) or _quantised(rest, count):
            continue
        gap = rest.min() - extreme if lowest else extreme - rest.max()
        width = float(rest.max()) - float(rest.min())
        # Saturated values lie beside the others, a fill lies apart; one that is negative among none is no measurement
        apart = gap > (GAP if kind == "f" else INT_GAP) * width
        if apart or (extreme < 0 <= rest.min() and kind == "f"):
            fills.append(Fill(float(extreme), count / len(values)))
    return fills


def _frequent(count: int, of: int) -> bool:
    return count >= COUNT and count >= SHARE * of


def _quantised(others: np.ndarray, count: int) -> bool:
    """Whether ``others`` repeat like a value that comes ``count`` times, which then is one of many steps."""
    return int(np.unique(others, return_counts=True)[1].max()) * RARER > count
