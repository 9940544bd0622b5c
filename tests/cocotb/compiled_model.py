"""The benches' model with seeded parameters, compiled, and queries for it."""

from __future__ import annotations

import numpy as np
from nearflash.contract import DeviceConfig
from nearflash.models import RecModel
from nearflash.quantize import CompiledModel, compile_model
from tops import MODEL

__all__ = ["compiled", "queries"]


def compiled(config: DeviceConfig) -> tuple[RecModel, CompiledModel]:
    model = RecModel(MODEL, seed=3)
    return model, compile_model(model, config, [queries(np.random.default_rng(1), 48)])


def queries(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """(dense, bags) with bags of different lengths; the last of table 0 is not empty."""
    bags = []
    for t in MODEL.tables:
        lengths = rng.integers(0, t.lookups + 1, batch)
        lengths[-1] = t.lookups
        bags.append((rng.integers(0, t.rows, lengths.sum()), np.cumsum(lengths) - lengths))
    return rng.standard_normal((batch, MODEL.dense)).astype(np.float32), bags
