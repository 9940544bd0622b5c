"""Two results side by side: what differs between JSON files of ``nearflash evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contract import DataError
from ..contract.reading import read_text, reading

__all__ = ["differences", "read_result"]

#: What names a row of a list; such rows are told apart by these, not by their place.
NAMES = ("what", "model", "part", "system", "locality_k", "batch", "dies_per_channel", "page_cache", "read_miss_us")
CHANCE = ("simulated_lookups_per_cpu_second",)  # of the machine that simulated, not of the device


def read_result(path: Path) -> dict[str, Any]:
    """A result's JSON. Raises :class:`~nearflash.contract.DataError` naming the file for anything else."""
    with reading(path):
        text = read_text(path)
        with reading(path, "JSON of `nearflash evaluate`"):
            held = json.loads(text)
        if not isinstance(held, dict) or not ({"grid", "queries_per_second"} & held.keys()):
            raise DataError("content", type(held).__name__, "must be a result of `nearflash evaluate --json`")
        return held


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per value that differs or that one of them lacks (None): ``figure``, ``before``, ``after``, ``change``
    (relative, None unless both are numbers and the first isn't 0); the largest changes first, what isn't comparable before
    them."""
    before, after = dict(_flat(a)), dict(_flat(b))
    rows = []
    for name in [*before, *(n for n in after if n not in before)]:
        x, y = before.get(name), after.get(name)
        if x != y:
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y))
            rows.append({"figure": name, "before": x, "after": y, "change": y / x - 1 if numbers and x else None})
    return sorted(rows, key=lambda r: -abs(r["change"]) if r["change"] is not None else float("-inf"))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for k, v in value.items():
            if k not in CHANCE:
                yield from _flat(v, f"{name}.{k}" if name else k)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            label = " ".join(f"{k}={v[k]}" for k in NAMES if k in v) if isinstance(v, dict) else ""
            yield from _flat(v, f"{name}[{label or i}]")
    else:
        yield name, value
