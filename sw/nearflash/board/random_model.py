"""A model of random integers for any device, made with NumPy alone: what a board can be tested with, and timed."""

from __future__ import annotations

import numpy as np

from ..contract import DeviceConfig, RowFormat, TableSpec
from ..contract.table import PoolMode
from ..quantize.compiled import CompiledModel
from ..quantize.tables import encode_rows
from ..reference.mlp import FcParams, MlpParams, ScaleParams

__all__ = ["random_model", "random_queries"]

BAG = 8  # lookups of a bag, at most


def random_model(config: DeviceConfig, rows: int = 64, seed: int = 0) -> CompiledModel:
    """Tables of ``rows`` random rows in the device's first format, and parameters that spread the activations of
    ``config``'s graph over their range, with some saturation. Of a device without a graph: two tables."""
    rng = np.random.default_rng(seed)
    graph, act = config.mlp.graph, config.mlp.act_bits
    width = {n.name: n.width for n in graph}
    dims = {t: n.width // len(n.tables) for n in graph for t in n.tables} or {0: 16, 1: 16}
    fmt = RowFormat[config.lookup.formats[0].upper()]
    mode = PoolMode[config.lookup.modes[0].upper()]
    tables = tuple(TableSpec(rows, dims[t], fmt, mode, headroom=12, quant_mult=1 << 14, quant_shift=14 - (act - 4))
                   for t in sorted(dims))
    stored = tuple(encode_rows(rng.integers(-64, 64, (t.rows, t.dim)) / np.float32(16), t.format) for t in tables)
    fc, scale = {}, {}
    for n in graph:
        if n.kind == "fc":
            half = 1 << n.weight_bits - 1
            shift = n.weight_bits + 14 + (1 if n is not graph[-1] else -8)
            shape = n.width, sum(width[i] for i in n.inputs)
            fc[n.name] = FcParams(rng.integers(-half, half, shape).astype(np.int8 if n.weight_bits == 8 else np.int16),
                                  rng.integers(-half << act, half << act, n.width),
                                  rng.integers(1 << 15, 1 << 16, n.width), rng.integers(shift, shift + 3, n.width))
        elif n.kind in ("dot", "mul"):
            scale[n.name] = ScaleParams(int(rng.integers(1 << 15, 1 << 16)), act + 14)
    return CompiledModel(config, tables, stored, MlpParams(fc, scale, -11), (1 << 14, 14 - (act - 4)), {})


def random_queries(model: CompiledModel, count: int, seed: int = 1
                   ) -> tuple[np.ndarray | None, list[tuple[np.ndarray, np.ndarray]]]:
    """``count`` queries: dense float32 [count, features] or None, and (indices, offsets) per table, bags of 1 to 8 rows."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(0, 2, (count, model.dense_features)).astype(np.float32) if model.dense_features else None
    bags = []
    for t in model.tables:
        lengths = rng.integers(1, min(BAG, model.config.lookup.max_bag) + 1, count)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        bags.append((rng.integers(0, t.rows, lengths.sum()), offsets))
    return dense, bags
