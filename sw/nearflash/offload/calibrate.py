"""Scales of a network's values, from what they are on sample inputs, by torchao's PT2E.

The quantizer annotates exactly what the fabric stores: the outputs of :mod:`.match`'s operators (after what fused into
them), at 8 or 16 bits, and the weights per output channel. What lies between, such as an attention's scores, has no code of
its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ..contract.errors import DataError, ModelError
from ..contract.tensor import Op
from .match import Matched
from .ops import Value

__all__ = ["Calibration", "calibrate", "fake_quantised"]

LIMITS = {8: 127, 16: 32767}
KEPT = 0.9998  # of an unusual sample's numbers in 8 bits: codes for the rest would make those of all others coarser


@dataclass(frozen=True)
class Calibration:
    """``largest``: the greatest magnitude that each graph node's numbers have codes for. ``note``: what it was made from."""

    largest: dict[str, float]
    note: str = ""

    def scale(self, value: Value) -> float:
        """Of one code of ``value``. Raises :class:`DataError` for a node this calibration doesn't know."""
        known = next((key for key in (value.key, *value.aliases) if key in self.largest), None)
        if known is None:
            raise DataError("calibration", value.key, f"one of the {len(self.largest)} nodes of the graph it was made for")
        codes = 254 if value.zero else LIMITS[value.bits]
        return max(self.largest[known], 1e-6) / codes  # a value that is always 0 has some scale too

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps({"note": self.note, "largest": {k: float(f"{v:.6g}") for k, v in self.largest.items()}},
                                   indent=0) + "\n")

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Of :meth:`save`. Raises :class:`DataError` for a file that is none."""
        try:
            d = json.loads(path.read_text())
            return cls({str(k): float(v) for k, v in d["largest"].items()}, str(d["note"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise DataError("calibration", str(path), f"a file that Calibration.save wrote ({type(e).__name__})") from e


def _stored(matched: Matched) -> dict[str, Value]:
    """One value for each node that has codes: the widest."""
    found: dict[str, Value] = {}
    for v in [*matched.inputs.values(), *(v for o in matched.operators for v in (o.output, o.before) if v)]:
        if v.key not in found or v.bits > found[v.key].bits:
            found[v.key] = v
    return found


def _quantizer(matched: Matched, observer: Any) -> Any:
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    stored = _stored(matched)
    weighted = {o.name.split(".")[0] for o in matched.operators if o.op in (Op.CONV, Op.DEPTHWISE)}
    weight = QuantizationSpec(torch.int8, PerChannelMinMaxObserver.with_args(eps=2**-40), -127, 127,
                              torch.per_channel_symmetric, ch_axis=0)

    class FabricQuantizer(Quantizer):
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                inputs, output = {}, None
                # a transposed convolution's scales are those of channels and phases, of which PT2E knows nothing
                if node.name in weighted and node.target != torch.ops.aten.conv_transpose2d.input:
                    inputs[node.args[1]] = weight
                if node.name in stored:
                    v = stored[node.name]
                    top = LIMITS[v.bits]
                    dtype = torch.int16 if v.bits == 16 else torch.int8
                    scheme = torch.per_tensor_affine if v.zero else torch.per_tensor_symmetric
                    output = QuantizationSpec(dtype, observer.with_args(eps=2**-40), -top, top, scheme)
                if inputs or output:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, output, _annotated=True)
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    return FabricQuantizer()


def fake_quantised(matched: Matched, samples: Iterable[tuple[torch.Tensor, ...]],
                   unusual: Iterable[tuple[torch.Tensor, ...]] = ()) -> fx.GraphModule:
    """PT2E's graph: quantise and dequantise nodes around float operators. ``samples``: inputs of the shapes traced, all of
    whose numbers have codes; ``unusual``: more of them, of whose numbers in 8 bits the largest 0.02 % may saturate.

    Raises:
        ModelError: no samples, no torchao.
    """
    try:
        from torchao.quantization.pt2e import MinMaxObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    except ImportError as e:
        raise ModelError("calibration", "torchao", "must be installed (pip install nearflash[sar])") from e

    class Observer(MinMaxObserver):
        """Of the largest number, or in 8 bits while :attr:`clipping` of the largest that counts."""

        clipping = False

        def forward(self, x_orig: torch.Tensor) -> torch.Tensor:
            if self.clipping and self.dtype == torch.int8:
                magnitudes = x_orig.abs().flatten()
                limit = float(magnitudes.kthvalue(int(KEPT * len(magnitudes)) + 1).values)
                super().forward(x_orig.clamp(-limit, limit))
                return x_orig
            return super().forward(x_orig)

    prepared = prepare_pt2e(copy.deepcopy(matched.graph), _quantizer(matched, Observer))
    count = 0
    with torch.no_grad():
        for count, sample in enumerate(samples, 1):  # noqa: B007
            prepared(*sample)
        Observer.clipping = True
        for sample in unusual:
            prepared(*sample)
    if not count:
        raise ModelError("samples", 0, "at least one: an uncalibrated model has no scales")
    return convert_pt2e(prepared, fold_quantize=True)


def calibrate(matched: Matched, samples: Iterable[tuple[torch.Tensor, ...]], note: str = "",
              unusual: Iterable[tuple[torch.Tensor, ...]] = ()) -> Calibration:
    """Scales for everything that ``matched`` stores, from ``samples`` and ``unusual`` as in :func:`fake_quantised`.

    Raises:
        ModelError: no samples, no torchao.
    """
    converted = fake_quantised(matched, samples, unusual)
    largest: dict[str, float] = {}
    for node in converted.graph.nodes:
        if "quantize_per_tensor" in str(node.target) and "dequantize" not in str(node.target):
            scale, low, high = float(node.args[1]), int(node.args[3]), int(node.args[4])
            affine = int(node.args[2]) == low
            largest[node.args[0].name] = scale * (high - low if affine else high)
    missing = set(_stored(matched)) - set(largest)
    assert not missing, f"PT2E left out {sorted(missing)}"
    return Calibration(largest, note)
