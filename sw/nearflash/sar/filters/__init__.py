"""Classical filters. Each is called ``filter(intensity [H, W] > 0, looks)`` and returns float32 [H, W] > 0 of that size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .bm3d import bm3d
from .frost import frost
from .gamma_map import gamma_map
from .kuan import kuan
from .lee import lee
from .nlm import nlm
from .refined_lee import refined_lee

__all__ = ["FILTERS", "Filter", "bm3d", "frost", "gamma_map", "kuan", "lee", "nlm", "refined_lee"]


@dataclass(frozen=True)
class Filter:
    """A filter and how many pixels of context decide a pixel (for BM3D, whose groups chain, nearly all of them)."""

    apply: Callable[[np.ndarray, float], np.ndarray]
    margin: int


FILTERS: Mapping[str, Filter] = {
    "lee": Filter(lee, 3), "refined-lee": Filter(refined_lee, 3), "kuan": Filter(kuan, 3), "frost": Filter(frost, 3),
    "gamma-map": Filter(gamma_map, 3), "bm3d": Filter(bm3d, 32), "nlm": Filter(nlm, 16)}
