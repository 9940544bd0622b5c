"""Ranges of a model's activations, measured on calibration batches in fp32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from ..contract import DataError
from ..contract.arrays import as_array
from ..models.module import RecModel

__all__ = ["METHODS", "Calibrator", "to_torch"]

METHODS = ("max", "percentile", "mse")
_SAMPLE = 1 << 18  # values kept per tensor, evenly spread over each batch's values


def to_torch(dense: Any, bags: Sequence[Any]) -> tuple[torch.Tensor | None, list[tuple[torch.Tensor, ...]]]:
    """NumPy (or torch) queries as :class:`RecModel` takes them; ``dense`` is None for a model without dense features."""
    out = []
    for bag in bags:
        items = [torch.as_tensor(as_array(x)) for x in bag]
        out.append((items[0].long(), items[1].long(), *(w.float() for w in items[2:])))
    return None if dense is None else torch.as_tensor(as_array(dense)).float(), out


class Calibrator:
    """Collects magnitudes of every tensor that will be quantised: dense, table0.., and each node's output.

    ``method``: "max" (largest magnitude seen), "percentile" (``percentile`` of the magnitudes), or "mse" (the clip with
    the least squared error at ``act_bits``).
    """

    def __init__(self, method: str = "max", percentile: float = 99.99, act_bits: int = 8):
        if method not in METHODS:
            raise DataError("method", method, f"must be one of {METHODS}")
        if not 0 < percentile <= 100:
            raise DataError("percentile", percentile, "must be above 0 and at most 100")
        self.method, self.percentile, self.act_bits = method, percentile, act_bits
        self._max: dict[str, float] = {}
        self._sample: dict[str, list[np.ndarray]] = {}

    def observe(self, model: RecModel, batches: Iterable[tuple[Any, ...]]) -> None:
        """Run ``model`` on batches of (dense, bags, ...); raises :class:`DataError` when a value is not finite."""
        count = 0
        with torch.no_grad():
            for dense, bags, *_ in batches:
                count += 1
                for name, value in model.trace(*to_torch(dense, bags)).items():
                    a = value.abs().flatten().numpy()
                    top = float(a.max(initial=0))
                    if not np.isfinite(top):
                        raise DataError(f"activation {name}", top, "must be finite on the calibration batches")
                    self._max[name] = max(self._max.get(name, 0.0), top)
                    if self.method != "max":
                        self._sample.setdefault(name, []).append(a[:: max(1, len(a) // _SAMPLE)])
        if not count:
            raise DataError("batches", count, "calibration needs at least one batch")

    def limit(self, names: Sequence[str]) -> float:
        """The magnitude that one shared scale of tensors ``names`` should map to the largest integer."""
        top = max(self._max[n] for n in names)
        if self.method == "max" or top == 0:
            return top
        a = np.concatenate([v for n in names for v in self._sample[n]])
        if self.method == "percentile":
            return float(np.percentile(a, self.percentile)) or top
        qmax = (1 << self.act_bits - 1) - 1
        clips = top * np.geomspace(1 / 16, 1, 33)

        def error(clip: float) -> float:
            q = np.minimum(np.rint(a * (qmax / clip)), qmax) * (clip / qmax)
            return float(np.square(q - a, dtype=np.float64).sum())

        return float(min(reversed(clips), key=error))
