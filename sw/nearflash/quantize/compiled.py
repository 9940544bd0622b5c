"""A model ready for a device: configuration, tables as stored bytes, integer parameters. NumPy only."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import DataError, DeviceConfig, RowFormat, TableSpec
from ..contract.table import PoolMode
from ..reference.mlp import FcParams, MlpParams, ScaleParams
from .image import parameter_image

__all__ = ["CompiledModel"]

FILE_VERSION = 1


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
        """Read what :meth:`save` wrote; raises :class:`DataError` for a file that is truncated or not one of these."""
        try:
            raw = Path(path).read_bytes()
            with np.load(io.BytesIO(raw), allow_pickle=False) as z:
                arrays = {k: z[k] for k in z.files}
            head = json.loads(arrays.pop("head").tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            raise DataError("path", str(path), f"not a complete compiled model: {e}") from e
        if head.get("version") != FILE_VERSION:
            raise DataError("version", head.get("version"), f"must be {FILE_VERSION}")
        try:
            tables = tuple(TableSpec(**(t | {"format": RowFormat(t["format"]), "mode": PoolMode(t["mode"])}))
                           for t in head["tables"])
            names = sorted({k.split("/")[1] for k in arrays if k.startswith("fc/")})
            fc = {n: FcParams(**{k: arrays[f"fc/{n}/{k}"] for k in ("weight", "bias", "mult", "shift")}) for n in names}
            params = MlpParams(fc, {k: ScaleParams(*v) for k, v in head["scale"].items()}, head["logit_exponent"])
            return cls(DeviceConfig.from_dict(head["config"]), tables,
                       tuple(arrays[f"rows{i}"] for i in range(len(tables))), params, tuple(head["dense_quant"]),
                       head["meta"])
        except (KeyError, TypeError) as e:
            raise DataError("path", str(path), f"not a complete compiled model: {e!r}") from e
