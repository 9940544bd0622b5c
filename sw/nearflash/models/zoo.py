"""The models of the RM-SSD evaluation (HPCA 2022): RMC1-3 (Gupta et al.), NCF (He et al.), Wide & Deep (Cheng et al.).

Published MLP shapes are kept to the layer. NCF's published head ends in 64 features (128-64); a last 64-1 layer turns
them into a logit. Wide & Deep's 512 dense features go straight into the concatenation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..contract import ModelError
from .module import RecModel
from .spec import ModelSpec, TableShape

__all__ = ["ZOO", "build", "model_spec", "shown_name"]


def _rmc1() -> ModelSpec:
    return ModelSpec("rmc1", (TableShape(4_000_000, 32, 80),) * 8, 128, (64, 32), (256, 64, 1))


def _rmc2() -> ModelSpec:
    return ModelSpec("rmc2", (TableShape(500_000, 64, 120),) * 32, 256, (128, 64), (128, 64, 1))


def _rmc3() -> ModelSpec:
    return ModelSpec("rmc3", (TableShape(2_000_000, 32, 20),) * 10, 2560, (1024, 256, 32), (512, 256, 1))


def _ncf() -> ModelSpec:
    users, items = TableShape(140_000, 64), TableShape(28_000, 64)
    return ModelSpec("ncf", (users, items, users, items), 0, (256, 256, 128, 64), (64, 1), "neumf")


def _wnd() -> ModelSpec:
    return ModelSpec("wnd", (TableShape(1_000_000, 32),) * 27, 512, (), (1024, 512, 256, 1))


#: Constructors of the full-size specs, by name.
ZOO: dict[str, Callable[[], ModelSpec]] = {"rmc1": _rmc1, "rmc2": _rmc2, "rmc3": _rmc3, "ncf": _ncf, "wnd": _wnd}


def shown_name(name: str) -> str:
    """A zoo model's name as publications write it."""
    return "WnD" if name == "wnd" else name.upper()


def model_spec(name: str, rows: int | None = None, format: str = "fp32") -> ModelSpec:
    """The spec of a zoo model; ``rows`` caps the rows of every table (default: the published number)."""
    if name not in ZOO:
        raise ModelError("name", name, f"must be one of {sorted(ZOO)}")
    s = ZOO[name]()
    return replace(s, tables=tuple(replace(t, rows=min(t.rows, rows or t.rows), format=format) for t in s.tables))


def build(name: str, rows: int = 1000, seed: int = 0, format: str = "fp32") -> RecModel:
    """A zoo model with seeded random parameters and at most ``rows`` rows per table (full tables take 4-30 GB)."""
    return RecModel(model_spec(name, rows, format), seed=seed)
