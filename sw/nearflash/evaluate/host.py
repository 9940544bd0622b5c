"""What the host takes for the MLPs and for vectors in its own DRAM: measured with PyTorch here, or given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract import DataError
from ..contract.reading import read_text, reading
from ..models import ModelSpec, RecModel

__all__ = ["HostTimes", "measure_host"]

TABLE_BYTES = 1 << 28  # of the table that vectors are taken from: more than caches hold
LOOKUPS = 80  # of a bag
REPEATS = 5  # of which the fastest counts


@dataclass(frozen=True)
class HostTimes:
    """``mlp_us[model][batch]``: CPU time of the dense part of a batch. ``vector_us[dim]``: of a vector taken from a table in
    DRAM and added. ``source``: where they come from."""

    mlp_us: dict[str, dict[int, float]]
    vector_us: dict[int, float]
    source: str

    def mlp(self, model: str, batch: int) -> float:
        """Raises :class:`~nearflash.contract.DataError` for what was neither measured nor given."""
        if batch not in self.mlp_us.get(model, {}):
            raise DataError(f"mlp_us.{model}.{batch}", None, f"missing: must be in the host's times ({self.source})")
        return self.mlp_us[model][batch]

    def vector(self, dim: int) -> float:
        """As :meth:`mlp`."""
        if dim not in self.vector_us:
            raise DataError(f"vector_us.{dim}", None, f"missing: must be in the host's times ({self.source})")
        return self.vector_us[dim]

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, "mlp_us": {m: {str(b): v for b, v in by.items()} for m, by in self.mlp_us.items()},
                "vector_us": {str(d): v for d, v in self.vector_us.items()}}

    @classmethod
    def from_json(cls, path: Path) -> HostTimes:
        """What :meth:`to_dict` gave, or a report's JSON, which holds it as ``host``. Raises
        :class:`~nearflash.contract.DataError` naming file and field."""
        with reading(path):
            text = read_text(path)
            with reading(path, "the host's times as JSON"):
                held = json.loads(text)
            held = held.get("host", held) if isinstance(held, dict) else held
            mlp, vector = ((held.get(k) if isinstance(held, dict) else None) for k in ("mlp_us", "vector_us"))
            if not isinstance(mlp, dict) or not isinstance(vector, dict):
                raise DataError("mlp_us, vector_us", None, "must be tables of times")
            return cls({m: _times(by, f"mlp_us.{m}") for m, by in mlp.items()}, _times(vector, "vector_us"),
                       f"given: {path.name}")


def _times(by: Any, name: str) -> dict[int, float]:
    if not isinstance(by, dict):
        raise DataError(name, by, "must be a table of times")
    for k, v in by.items():
        if not k.isdecimal() or isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 < v < 1e12:
            raise DataError(f"{name}.{k}", v, "must be a time in us, above 0, by a whole number")
    return {int(k): float(v) for k, v in by.items()}


class _Dense(RecModel):
    """A model whose pooled vectors are given."""

    def pool(self, bags: Any) -> list[Tensor]:
        return list(bags)


def _fastest(work: Callable[[], Any]) -> float:
    """CPU seconds of the fastest of :data:`REPEATS`, after one that doesn't count."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure_host(specs: Iterable[ModelSpec], batches: Iterable[int]) -> HostTimes:
    """One thread of this machine, in CPU time, so that other work on it matters little."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            specs = list(specs)
            mlp = {s.name: {b: _mlp_us(s, b) for b in batches} for s in specs}
            vector = {dim: _vector_us(dim) for dim in sorted({t.dim for s in specs for t in s.tables})}
    finally:
        torch.set_num_threads(threads)
    return HostTimes(mlp, vector, f"measured: PyTorch {torch.__version__}, one thread, CPU time")


def _mlp_us(spec: ModelSpec, batch: int) -> float:
    model = _Dense(replace(spec, tables=tuple(replace(t, rows=1) for t in spec.tables))).eval()
    dense = torch.randn(batch, spec.dense) if spec.dense else None
    pooled: Any = [torch.randn(batch, t.dim) for t in spec.tables]
    calls = max(1, 64 // batch)  # a clock of CPU time is coarse
    return _fastest(lambda: [model(dense, pooled) for _ in range(calls)]) / calls * 1e6


def _vector_us(dim: int) -> float:
    table = torch.ones(TABLE_BYTES // (4 * dim), dim)  # zeros would be one page of memory, mapped everywhere
    gen = torch.Generator().manual_seed(0)
    rows = torch.randint(len(table), (200 * LOOKUPS,), generator=gen)
    offsets = torch.arange(0, len(rows), LOOKUPS)
    return _fastest(lambda: torch.nn.functional.embedding_bag(rows, table, offsets, mode="sum")) / len(rows) * 1e6
