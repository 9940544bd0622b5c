"""Post-training quantisation of a :class:`RecModel` to the integers a device computes with.

Weights are symmetric per output channel, activations symmetric per tensor. The partial sums of an fc layer's inputs
are added as integers, so its inputs' scales are folded into its weights (column by column) before these are quantised:
every table keeps its own activation scale, exactly. The features of a ``dot`` node share one scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import DataError, DeviceConfig, ModelError, Node, TableSpec
from ..models.module import RecModel
from ..reference.mlp import LOGIT_BITS, FcParams, MlpParams, ScaleParams
from ..reference.pooling import choose_window
from ..reference.requantize import ACC_BITS
from .calibrate import Calibrator
from .compiled import CompiledModel
from .scales import multiplier
from .tables import encode_rows, largest_magnitude

__all__ = ["QuantizeOptions", "compile_model"]

_BIAS_LIMIT = 1 << 30  # weights too small for their bias get a coarser scale: the bias dominates the output


@dataclass(frozen=True)
class QuantizeOptions:
    """``method``, ``percentile``: see :class:`Calibrator`. ``max_bag``: largest bag any table must hold (default: each
    table's lookups). ``max_weight``: largest magnitude of a per-sample weight that queries may carry."""

    method: str = "max"
    percentile: float = 99.99
    max_bag: int | None = None
    max_weight: float = 1.0


def compile_model(model: RecModel, config: DeviceConfig, batches: Iterable[tuple[Any, ...]],
                  options: QuantizeOptions | None = None) -> CompiledModel:
    """Quantise ``model`` for the device ``config`` (from :func:`nearflash.compiler.compile_device`).

    ``batches``: calibration queries (dense, bags, ...), NumPy or torch. Raises :class:`ModelError` when ``config`` was
    not made for this model or a value does not fit the device's integers, :class:`DataError` for NaN or infinity.
    """
    options = options or QuantizeOptions()
    _check_graph(model, config)
    for name, p in model.named_parameters():
        if not bool(p.isfinite().all()):
            raise DataError(name, "NaN or infinity", "every parameter must be finite")
    calibrator = Calibrator(options.method, options.percentile, config.mlp.act_bits)
    calibrator.observe(model, batches)
    scale, quant = _activation_scales(config, model, calibrator)
    tables, rows = _tables(model, config, options, quant)
    params = _parameters(model, config, scale)
    meta = json.loads(json.dumps({  # plain data, as it comes back from a file
        "spec": model.spec.to_dict(), "method": options.method,
        "scales": {k: np.asarray(v).tolist() for k, v in scale.items()}}))
    return CompiledModel(config, tables, rows, params, quant.get("dense", (0, 0)), meta)


def _check_graph(model: RecModel, config: DeviceConfig) -> None:
    def shape(graph: tuple[Node, ...]) -> list[tuple[Any, ...]]:
        return [(n.name, n.kind, n.width, n.inputs, n.tables, n.dim, n.relu) for n in graph]

    if shape(config.mlp.graph) != shape(model.graph):
        raise ModelError("config.mlp.graph", config.name, f"was not compiled for model {model.spec.name!r}")


def _numpy(model: RecModel) -> dict[str, np.ndarray]:
    return {k: p.detach().numpy() for k, p in model.named_parameters()}


def _tables(model: RecModel, config: DeviceConfig, options: QuantizeOptions, quant: dict[str, tuple[int, int]]
            ) -> tuple[tuple[TableSpec, ...], tuple[np.ndarray, ...]]:
    parameters = _numpy(model)
    specs, rows = [], []
    for i, t in enumerate(model.spec.tables):
        name = f"embeddings.{i}.weight"
        raw = encode_rows(parameters[name], t.row_format, name)
        bag = max(t.lookups, options.max_bag or 0)
        if bag > config.lookup.max_bag:
            raise ModelError(f"tables[{i}].lookups", bag, f"must be at most lookup.max_bag ({config.lookup.max_bag})")
        top = largest_magnitude(raw, t.row_format, t.dim)
        lsb, headroom = choose_window(top, bag, config.lookup.acc_bits, options.max_weight, t.row_format)
        specs.append(TableSpec(t.rows, t.dim, t.row_format, t.pool_mode, lsb, headroom, *quant[f"table{i}"]))
        rows.append(raw)
    return tuple(specs), tuple(rows)


def _activation_scales(config: DeviceConfig, model: RecModel, calibrator: Calibrator
                       ) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """({node: scale of its output, an array per element for tables nodes}, {"dense", "table<t>": (mult, shift)}).

    A quantiser at the fp32 border is rounded to its integers first, and its true scale used from then on.
    """
    graph = config.mlp.graph
    qmax = (1 << config.mlp.act_bits - 1) - 1
    nodes = {n.name: n for n in graph}

    def tensors(name: str) -> tuple[str, ...]:
        return tuple(f"table{t}" for t in nodes[name].tables) or (name,)

    border = {t for n in graph if n.kind in ("dense", "tables") for t in tensors(n.name)}
    group = {t: (t,) for n in graph for t in tensors(n.name)}  # the tensors that share a tensor's scale
    for n in graph:
        if n.kind == "dot":
            together = tuple(sorted({o for i in n.inputs for t in tensors(i) for o in group[t]}))
            group |= dict.fromkeys(together, together)

    value: dict[tuple[str, ...], float] = {}
    quant: dict[str, tuple[int, int]] = {}

    def scale_of(tensor: str) -> float:
        g = group[tensor]
        if g not in value:
            value[g] = (calibrator.limit(g) or float(qmax)) / qmax  # all zero: any scale does
            if border & set(g):
                mult, shift = multiplier(1 / value[g], f"scale of {tensor}", low=-128, high=127)
                value[g] = math.ldexp(1.0, shift) / mult
                quant.update(dict.fromkeys(border & set(g), (mult, shift)))
        return value[g]

    scale: dict[str, Any] = {}
    for n in graph[:-1]:
        if n.kind == "tables":
            dims = [model.spec.tables[t].dim for t in n.tables]
            scale[n.name] = np.repeat([scale_of(f"table{t}") for t in n.tables], dims)
        else:
            scale[n.name] = scale_of(n.name)
    return scale, quant


def _parameters(model: RecModel, config: DeviceConfig, scale: dict[str, Any]) -> MlpParams:
    graph = config.mlp.graph
    parameters = _numpy(model)
    width = {n.name: n.width for n in graph}
    fc: dict[str, FcParams] = {}
    scales: dict[str, ScaleParams] = {}
    exponent = 0
    for n in graph:
        if n.kind in ("dot", "mul"):
            a, b = scale[n.inputs[0]], scale[n.inputs[-1]]
            ratio = np.unique(np.asarray(a) * np.asarray(b) if n.kind == "mul" else np.square(np.asarray(a)))
            if len(ratio) != 1:  # a mul of several tables of different scales: no single multiplier is exact
                raise ModelError(f"node {n.name}", ratio.tolist(), "inputs must have one scale each")
            scales[n.name] = ScaleParams(*multiplier(float(ratio[0]) / scale[n.name], f"requantiser of {n.name}"))
        elif n.kind == "fc":
            columns = np.concatenate([np.broadcast_to(scale[i], width[i]) for i in n.inputs])
            weight, bias = (parameters[f"linears.{n.name}.{k}"].astype(np.float64) for k in ("weight", "bias"))
            out = None if n is graph[-1] else scale[n.name]
            fc[n.name], exponent = _fc(n, weight, bias, columns, out, config.mlp.act_bits)
    return MlpParams(fc, scales, exponent)


def _fc(node: Node, weight: np.ndarray, bias: np.ndarray, columns: np.ndarray, out: float | None, act_bits: int
        ) -> tuple[FcParams, int]:
    """Integers of one layer; ``columns``: scale of every input element; ``out``: output scale, None for logits.
    Returns (parameters, logit exponent)."""
    qmax, wmax = (1 << act_bits - 1) - 1, (1 << node.weight_bits - 1) - 1
    real = weight * columns  # accumulator = sum of w * x over integers x stands for sum of (w * scale) * x
    step = np.maximum(np.abs(real).max(axis=1) / wmax, np.abs(bias) / _BIAS_LIMIT)
    step[step == 0] = columns.max() / wmax  # a row of zeros
    w = np.rint(real / step[:, None]).astype(np.int64)
    b = np.rint(bias / step).astype(np.int64)
    bound = np.abs(w).sum(axis=1) * qmax + np.abs(b)
    worst = int(np.argmax(bound))
    if bound[worst] >= 1 << ACC_BITS - 1:
        raise ModelError(f"layer {node.name}, output {worst}", int(bound[worst]),
                         f"an accumulator must stay below 2**{ACC_BITS - 1}")
    exponent = 0
    if out is None:
        # the finest format whose int32 holds every reachable logit and whose multipliers stay below 2**15
        peak = max(float((bound * step).max()) / (1 << LOGIT_BITS - 2), float(step.max()) / (1 << 15))
        exponent = math.frexp(peak)[1]
        out = math.ldexp(1.0, exponent)
    pairs = [multiplier(float(s) / out, f"requantiser of {node.name}, output {r}") for r, s in enumerate(step)]
    mult, shift = (np.array(v, np.int64) for v in zip(*pairs, strict=True))
    dtype = np.int8 if node.weight_bits == 8 else np.int16
    return FcParams(w.astype(dtype), b, mult, shift), exponent
