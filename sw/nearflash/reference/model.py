"""The whole device as one function: queries to logits, bit for bit what the hardware returns. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.arrays import as_array, check_finite
from ..contract.errors import DataError
from .fp32 import quantize_fp32
from .metrics import auc
from .mlp import run_graph, run_nodes
from .pooling import pool_bags

if TYPE_CHECKING:
    from ..quantize.compiled import CompiledModel

__all__ = ["Distance", "IntegerModel", "bag_lengths", "distance"]


def bag_lengths(indices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Bag lengths from EmbeddingBag's (indices, offsets)."""
    ends = np.append(np.asarray(offsets, np.int64), len(indices))
    lengths = np.diff(ends)
    if len(ends) > 1 and (ends[0] != 0 or (lengths < 0).any()):
        raise DataError("offsets", ends[:-1].tolist()[:8], f"must start at 0 and rise to at most {len(indices)}")
    return lengths


class IntegerModel:
    """Runs a :class:`~nearflash.quantize.CompiledModel` exactly as the device does.

    Queries: ``dense`` float32 [B, features] (None without), ``bags[t]`` = (indices, offsets[, weights]).
    """

    def __init__(self, compiled: CompiledModel):
        self.compiled = compiled

    def pool(self, bags: Sequence[Any]) -> tuple[list[np.ndarray], np.ndarray]:
        """(pooled fp32 [B, dim] per table, bad [B]): a sample is bad when a row or weight is not finite or its value
        leaves the table's window; the device then returns NaN and fails the command. Raises :class:`DataError` for an
        index out of range, naming its table and position."""
        c = self.compiled
        if len(bags) != len(c.tables):
            raise DataError("bags", len(bags), f"must hold one entry per table ({len(c.tables)})")
        pooled, bad = [], np.zeros(len(bags[0][1]), bool)
        for t, (spec, rows, bag) in enumerate(zip(c.tables, c.rows, bags, strict=True)):
            indices = as_array(bag[0]).astype(np.int64)
            outside = np.flatnonzero((indices < 0) | (indices >= spec.rows))
            if len(outside):
                raise DataError(f"bags[{t}].indices[{outside[0]}]", int(indices[outside[0]]),
                                f"must be from 0 to {spec.rows - 1}")
            weights = as_array(bag[2]).astype(np.float32) if len(bag) > 2 and bag[2] is not None else None
            out, info = pool_bags(spec, c.config.lookup.acc_bits, rows[indices], bag_lengths(indices, bag[1]), weights)
            pooled.append(out)
            if len(info.bad) != len(bad):
                raise DataError(f"bags[{t}].offsets", len(info.bad), f"must hold one bag per sample ({len(bad)})")
            bad |= info.bad
        return pooled, bad

    def quantized(self, dense: Any, bags: Sequence[Any]) -> tuple[np.ndarray | None, list[np.ndarray], np.ndarray]:
        """(dense integers or None, pooled integers per table, bad [B])."""
        c = self.compiled
        bits = c.config.mlp.act_bits
        pooled, bad = self.pool(bags)
        pooled_q = [quantize_fp32(p, s.quant_mult, s.quant_shift, bits)
                    for p, s in zip(pooled, c.tables, strict=True)]
        dense_q = None
        if c.dense_features:
            dense = as_array(dense).astype(np.float32)
            if dense.shape != (len(bad), c.dense_features):
                raise DataError("dense", dense.shape, f"must be [{len(bad)}, {c.dense_features}]")
            check_finite(dense, "dense")
            dense_q = quantize_fp32(dense, *c.dense_quant, bits)
        return dense_q, pooled_q, bad

    def logits(self, dense: Any, bags: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(integer logits [B, outputs], fp32 logits [B, outputs]); raises :class:`DataError` for a bad sample."""
        c = self.compiled
        dense_q, pooled_q, bad = self.quantized(dense, bags)
        if bad.any():
            raise DataError("sample", int(np.argmax(bad)), "a row or weight is not finite or leaves its table's window")
        return run_graph(c.config.mlp.graph, c.config.mlp.act_bits, c.params, dense_q, pooled_q)

    def nodes(self, dense: Any, bags: Sequence[Any]) -> dict[str, np.ndarray]:
        """Every graph node's integer output, for localising a difference."""
        c = self.compiled
        dense_q, pooled_q, _ = self.quantized(dense, bags)
        return run_nodes(c.config.mlp.graph, c.config.mlp.act_bits, c.params, dense_q, pooled_q)


@dataclass(frozen=True)
class Distance:
    """How far the integer model is from fp32: logit errors, and both AUCs (None without labels)."""

    max_error: float
    mean_error: float
    samples: int
    auc_fp32: float | None = None
    auc_integer: float | None = None


def distance(model: Any, compiled: CompiledModel, batches: Sequence[tuple[Any, ...]]) -> Distance:
    """Compare ``model`` (a :class:`~nearflash.models.RecModel`) with its integers on (dense, bags[, labels]) batches."""
    import torch  # the fp32 side; everything else here needs NumPy alone

    from ..quantize.calibrate import to_torch

    exact, ours, labels = [], [], []
    integer = IntegerModel(compiled)
    for dense, bags, *rest in batches:
        with torch.no_grad():
            exact.append(model(*to_torch(dense, bags)).numpy())
        ours.append(integer.logits(dense, bags)[1])
        labels += [np.asarray(rest[0])] if rest and rest[0] is not None else []
    a, b = np.concatenate(exact), np.concatenate(ours)
    error = np.abs(a.astype(np.float64) - b)
    scores = (None, None)
    if labels:
        y = np.concatenate(labels)
        scores = auc(y, a[:, 0]), auc(y, b[:, 0])
    return Distance(float(error.max()), float(error.mean()), len(a), *scores)
