"""What the RTL took in the grid's cases: published in ``bench/baseline``, kept in the cache, or not measured yet.

A result belongs to the Verilog of its device and to its case, so a change of the gateware that leaves a device as it is
leaves its results. ``python -m bench.timing_grid_rtl`` publishes what the cache has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearflash.cache import cache_dir, digest
from nearflash.contract import DeviceConfig
from nearflash_hw.sources import gateware_digest
from nearflash_sim.backend import verilog

__all__ = ["Results"]

PUBLISHED = Path(__file__).parent / "baseline" / "timing_grid.json"
HOST = "1"  # to be raised when the driver or nearflash_sim.timing.rtl sends commands or takes completions in another way


def published() -> dict[str, dict[str, Any]]:
    """``designs``: of each device its Verilog's digest, and that of the sources it came from; ``cases``: results by key."""
    return json.loads(PUBLISHED.read_text()) if PUBLISHED.is_file() else {"designs": {}, "cases": {}}


def _folder() -> Path:
    return cache_dir() / "timing_grid"


class Results:
    """Those of the device ``name`` of ``config``."""

    def __init__(self, name: str, config: DeviceConfig):
        held = published()
        sources = digest(gateware_digest("synthesis", "builder"), repr(replace(config, name="")))
        design = held["designs"].get(name, {})
        if design.get("sources") != sources:
            design = {"sources": sources, "verilog": digest(verilog(config))}
        self._verilog, self._cases = design["verilog"], held["cases"]
        _write(_folder() / "designs" / f"{digest(name)}.json", {name: design})

    def key(self, *case: str) -> str:
        return digest(self._verilog, HOST, *case)

    def of(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The case's; ``measure()``, if there is none yet."""
        if key in self._cases:
            return self._cases[key]
        kept = _folder() / f"{key}.json"
        if not kept.is_file():
            _write(kept, measure())
        return json.loads(kept.read_text())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, default=int))  # some of a table's numbers are NumPy's
    new.rename(path)


def publish() -> None:
    """Add what the cache has to what is published."""
    held = published()
    for path in (_folder() / "designs").glob("*.json"):
        held["designs"] |= json.loads(path.read_text())
    held["cases"] |= {path.stem: json.loads(path.read_text()) for path in _folder().glob("*.json")}
    parts = {name: ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(rows.items()))
             for name, rows in held.items()}
    PUBLISHED.write_text("{" + ",\n".join(f'"{name}": {{\n{rows}\n}}' for name, rows in parts.items()) + "}\n")
    print(f"{len(held['cases'])} cases of {len(held['designs'])} devices in {PUBLISHED}")


if __name__ == "__main__":
    publish()
