"""The integer semantics of the MLP graph (:mod:`nearflash.contract.mlp`), bit for bit what the gateware computes.

Activations are symmetric signed integers of ``act_bits`` bits. Per node:

``fc``
    acc = W @ x + bias, then :func:`requantize` per output channel: to ``act_bits`` (with ReLU if the node has it),
    or, for the last node, to int32 without ReLU: the logit is that integer times 2**logit_exponent, as fp32
``dot``
    acc = dot product of features i > j, row-major, requantised with the node's one multiplier and shift
``mul``
    acc = element-wise product, requantised likewise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..contract.mlp import Node
from . import fp32
from .requantize import ACC_BITS, requantize

__all__ = ["LOGIT_BITS", "FcParams", "MlpParams", "ScaleParams", "run_graph", "run_nodes"]

LOGIT_BITS = 32


@dataclass(frozen=True)
class FcParams:
    """Parameters of one fc node with R outputs and C inputs (C over ``cat(inputs)``, decomposed or not)."""

    weight: np.ndarray  #: [R, C], signed, within the node's weight_bits
    bias: np.ndarray  #: [R], int64, in accumulator units
    mult: np.ndarray  #: [R], 0 to 2**16 - 1
    shift: np.ndarray  #: [R], 0 to 62


@dataclass(frozen=True)
class ScaleParams:
    """Requantiser of one dot or mul node."""

    mult: int
    shift: int


@dataclass(frozen=True)
class MlpParams:
    """Everything :func:`run_graph` needs beside the graph: by node name."""

    fc: dict[str, FcParams]
    scale: dict[str, ScaleParams] = field(default_factory=dict)
    logit_exponent: int = 0  # logits are int32 * 2**logit_exponent


def _matmul(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x [..., C] @ w.T [C, R], exact: every partial sum is an integer below 2**53, so float64 BLAS makes no error."""
    c = x.shape[-1]
    bound = int(np.abs(x).max(initial=0)) * int(np.abs(w).max(initial=0)) * c
    assert bound < 1 << ACC_BITS - 1, f"products of {c} inputs may exceed {ACC_BITS} bits"
    return (x.astype(np.float64) @ w.astype(np.float64).T).astype(np.int64)


def run_nodes(graph: tuple[Node, ...], act_bits: int, params: MlpParams, dense_q: np.ndarray | None,
              pooled_q: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Every node's output, int64 [B, width], by name; arguments as :func:`run_graph`."""
    out: dict[str, np.ndarray] = {}
    for n in graph:
        ins = [out[i] for i in n.inputs]
        if n.kind == "dense":
            if dense_q is None:
                raise ValueError(f"graph node {n.name}: dense features are missing")
            y = np.asarray(dense_q, np.int64)
        elif n.kind == "tables":
            y = np.concatenate([np.asarray(pooled_q[t], np.int64) for t in n.tables], axis=1)
        elif n.kind == "fc":
            p = params.fc[n.name]
            acc = _matmul(np.concatenate(ins, axis=1), np.asarray(p.weight, np.int64)) + np.asarray(p.bias, np.int64)
            last = n is graph[-1]
            y = requantize(acc, np.asarray(p.mult, np.int64), np.asarray(p.shift, np.int64),
                           LOGIT_BITS if last else act_bits, n.relu and not last)
        elif n.kind == "dot":
            x = np.concatenate(ins, axis=1)
            x = x.reshape(x.shape[0], -1, n.dim)
            i, j = np.tril_indices(x.shape[1], -1)
            acc = np.einsum("bpd,bpd->bp", x[:, i], x[:, j])
            y = requantize(acc, params.scale[n.name].mult, params.scale[n.name].shift, act_bits, n.relu)
        else:
            y = requantize(ins[0] * ins[1], params.scale[n.name].mult, params.scale[n.name].shift, act_bits, n.relu)
        if y.shape[1] != n.width:
            raise ValueError(f"graph node {n.name}: {y.shape[1]} elements, but its width is {n.width}")
        out[n.name] = y
    return out


def run_graph(graph: tuple[Node, ...], act_bits: int, params: MlpParams, dense_q: np.ndarray | None,
              pooled_q: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(int logits [B, R] int64 within int32, fp32 logits [B, R]) of a batch.

    ``dense_q`` [B, width] integers (None without a dense node); ``pooled_q[t]`` [B, dim of table t] integers.
    """
    y = run_nodes(graph, act_bits, params, dense_q, pooled_q)[graph[-1].name]
    return y, fp32.int_to_fp32(y, params.logit_exponent)
