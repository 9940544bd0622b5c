"""A model ready for a device: configuration, tables as stored bytes, integer parameters. NumPy only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import DataError, DeviceConfig, Node, RowFormat, TableSpec
from ..contract.arrays import read_arrays
from ..contract.reading import reading
from ..contract.table import PoolMode
from ..contract.typed import check_table
from ..reference.mlp import FcParams, MlpParams, ScaleParams
from .image import parameter_image

__all__ = ["CompiledModel"]

FILE_VERSION = 1
_WHAT = "a complete compiled model"


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """What the device computes, to the bit: :class:`nearflash.reference.model.IntegerModel` runs it,
    :meth:`nearflash.runtime.Device.load` puts it on a device.

    ``tables``: descriptors without extents; ``rows[t]``: uint8 [rows, row bytes]; ``params``: integers of every node;
    ``dense_quant``: (mult, shift) of the dense features; ``meta``: spec, calibration and scales, as plain data.
    """

    config: DeviceConfig
    tables: tuple[TableSpec, ...]
    rows: tuple[np.ndarray, ...]
    params: MlpParams
    dense_quant: tuple[int, int] = (0, 0)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def dense_features(self) -> int:
        """Dense features per sample."""
        return sum(n.width for n in self.config.mlp.graph if n.kind == "dense")

    @property
    def outputs(self) -> int:
        """Logits per sample."""
        return self.config.mlp.graph[-1].width if self.config.mlp.graph else 0

    @cached_property
    def image(self) -> bytes:
        """The parameter image for PROGRAM_LOAD."""
        return parameter_image(self.config, self.params, self.dense_quant)

    def on(self, config: DeviceConfig) -> CompiledModel:
        """The same model for another device: one whose graph computes the same, whatever its kernels, and whose
        accumulators are as wide. Raises :class:`DataError` for others, naming the node."""
        mine, theirs = self.config, config
        if mine.lookup.acc_bits != theirs.lookup.acc_bits or mine.mlp.act_bits != theirs.mlp.act_bits:
            raise DataError("config", (theirs.lookup.acc_bits, theirs.mlp.act_bits), "must have lookup.acc_bits and "
                                                                                     "mlp.act_bits "
                            f"of {(mine.lookup.acc_bits, mine.mlp.act_bits)}, as this model was compiled for")
        ours = {n.name: _function(n) for n in mine.mlp.graph}
        for n in theirs.mlp.graph:
            if ours.pop(n.name, None) != _function(n):
                raise DataError(f"config.mlp.graph.{n.name}", n.name, "is not a node of this model, or another one")
        if ours:
            raise DataError("config.mlp.graph", [n.name for n in theirs.mlp.graph], f"lacks node {next(iter(ours))}")
        return replace(self, config=config)

    def save(self, path: str | Path) -> None:
        """Write one .npz file (no pickles)."""
        tables = [{k: int(v) for k, v in asdict(t).items() if k != "extents"} for t in self.tables]
        head = {"version": FILE_VERSION, "config": self.config.to_dict(), "tables": tables, "meta": self.meta,
                "dense_quant": list(self.dense_quant), "logit_exponent": self.params.logit_exponent,
                "scale": {k: [s.mult, s.shift] for k, s in self.params.scale.items()}}
        arrays = {f"rows{i}": r for i, r in enumerate(self.rows)}
        for name, p in self.params.fc.items():
            arrays |= {f"fc/{name}/{k}": getattr(p, k) for k in ("weight", "bias", "mult", "shift")}
        with open(path, "wb") as f:
            np.savez_compressed(f, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> CompiledModel:
        """Read what :meth:`save` wrote. Raises :class:`DataError` for a file that is damaged or not one of these, and where
        its parts don't fit each other; each names the file."""
        with reading(path):
            arrays = read_arrays(path, _WHAT)
            with reading(path, _WHAT):
                head = json.loads(arrays.pop("head", np.zeros(0)).tobytes())
            version = head.get("version") if isinstance(head, dict) else None
            if version != FILE_VERSION:
                raise DataError("version", version, f"must be {FILE_VERSION}")
            config = DeviceConfig.from_dict(head.get("config", {}))
            tables = tuple(_table(i, t) for i, t in enumerate(_need(head, "tables", list)))
            rows = tuple(_array(arrays, f"rows{i}", (t.rows, t.format.row_bytes(t.dim)), np.uint8)
                         for i, t in enumerate(tables))
            width = {n.name: n.width for n in config.mlp.graph}
            fc: dict[str, FcParams] = {}
            for n in config.mlp.graph:
                if n.kind == "fc":
                    shape = (n.width, sum(width[i] for i in n.inputs))
                    fc[n.name] = FcParams(
                        _array(arrays, f"fc/{n.name}/weight", shape, np.int8 if n.weight_bits == 8 else np.int16),
                        *(_array(arrays, f"fc/{n.name}/{k}", shape[:1], np.int64) for k in ("bias", "mult", "shift")))
            scale = {k: ScaleParams(*_pair(f"scale.{k}", v)) for k, v in _need(head, "scale", dict).items()}
            needed = sorted(n.name for n in config.mlp.graph if n.kind in ("dot", "mul"))
            if sorted(scale) != needed:
                raise DataError("scale", sorted(scale), f"must be of nodes {needed}")
            params = MlpParams(fc, scale, _integer("logit_exponent", head.get("logit_exponent")))
            dense = _pair("dense_quant", head.get("dense_quant"))
            return cls(config, tables, rows, params, dense, _need(head, "meta", dict))


def _function(n: Node) -> tuple[Any, ...]:
    """What a node computes, without how."""
    return n.kind, n.width, n.inputs, n.tables, n.dim, n.relu, n.weight_bits


def _need(head: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(head.get(key), kind):
        raise DataError(key, head.get(key), "must be a list" if kind is list else "must be a table of named values")
    return head[key]


def _integer(name: str, v: Any) -> int:
    if type(v) is not int or not -(1 << 31) <= v < 1 << 31:
        raise DataError(name, v, "must be an integer of 32 bits")
    return v


def _pair(name: str, v: Any) -> tuple[int, int]:
    if not isinstance(v, list) or len(v) != 2:
        raise DataError(name, v, "must be a multiplier and a shift")
    return _integer(name, v[0]), _integer(name, v[1])


def _table(i: int, t: Any) -> TableSpec:
    name = f"tables[{i}]"
    values: dict[str, Any] = {k: _integer(f"{name}.{k}", v) for k, v in check_table(TableSpec, t, name, DataError).items()}
    try:
        values |= {"format": RowFormat(values.get("format", 0)), "mode": PoolMode(values.get("mode", 0))}
        spec = TableSpec(**values)
    except ValueError as e:
        raise DataError(name, values, f"has an unknown format or mode: {e}") from e
    if spec.rows < 1 or spec.dim < 1:
        raise DataError(name, (spec.rows, spec.dim), "must have rows and a dimension")
    return spec


def _array(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    a = arrays.get(name)
    if a is None or a.shape != shape or a.dtype != dtype:
        raise DataError(name, None if a is None else (str(a.dtype), a.shape), f"must be {np.dtype(dtype)} {shape}")
    return a
