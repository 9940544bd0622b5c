"""Number formats: the fewest bits, layer by layer, that keep a model's logits close to fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ..contract import DeviceConfig, ModelError
from ..models.module import RecModel
from ..quantize.calibrate import to_torch
from ..quantize.quantize import compile_model
from ..reference.model import distance
from .plan import PlanOptions, compile_device

__all__ = ["BITS", "Formats", "least_formats"]

BITS = (8, 16)


@dataclass(frozen=True)
class Formats:
    """``weight_bits`` by layer; ``error``: mean distance of the integer logits to fp32 PyTorch's, as a share of the latter's
    standard deviation."""

    act_bits: int
    weight_bits: dict[str, int]
    error: float


def least_formats(model: RecModel, base: DeviceConfig, batches: Sequence[tuple[Any, ...]], error: float,
                  progress: Callable[[str], None] = lambda text: None) -> Formats:
    """The formats of fewest bits whose :class:`Formats` ``error`` is at most ``error`` on ``batches`` ((dense, bags), which
    also calibrate): 8-bit activations before 16, then the fewest weights of 16 bits. All subsets of layers are candidates.

    Raises :class:`ModelError` with the least error there is when no format is close enough.
    """
    if not error > 0:
        raise ModelError("error", error, "must be above 0")
    planned = compile_device(model.spec, base, PlanOptions(onchip_bytes=1 << 40))
    exact = np.concatenate([model(*to_torch(*b)).detach().numpy() for b in batches])
    spread = float(exact.std()) or 1.0
    size = {n.name: n.width * columns for n, columns in model.spec.layers()}

    def measured(act_bits: int, wide: frozenset[str]) -> Formats:
        bits = {name: max(BITS) if name in wide else min(BITS) for name in size}
        progress(f"measuring {act_bits}-bit activations, 16-bit weights in {', '.join(sorted(wide)) or 'no layer'}")
        graph = tuple(replace(n, weight_bits=bits[n.name], kr=1, kc=1, kr_split=(), kc_split=()) if n.kind == "fc" else n
                      for n in planned.mlp.graph)
        config = replace(planned, mlp=replace(planned.mlp, graph=graph, act_bits=act_bits))
        found = distance(model, compile_model(model, config, batches), batches)
        return Formats(act_bits, bits, found.mean_error / spread)

    best: list[Formats] = []
    for act_bits in BITS:
        best.append(measured(act_bits, frozenset(size)))
        if best[-1].error <= error:  # else no fewer bits of weights would do
            every = (measured(act_bits, wide) for wide in _subsets(size))
            return next((f for f in every if f.error <= error), best[-1])
    raise ModelError("error", error, f"can't be reached: it is {min(f.error for f in best):.3g} with 16 bits everywhere")


def _subsets(size: dict[str, int]) -> Iterator[frozenset[str]]:
    """Sets of layers, in the order of the weights they have."""
    sets = [frozenset(some) for k in range(len(size)) for some in combinations(size, k)]
    yield from sorted(sets, key=lambda s: sum(size[n] for n in s))
