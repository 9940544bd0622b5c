"""What the tensor engine of ``bench tensor_tile`` takes of an XC7Z020, alone, unit by unit, with packed products and 8
channels a cycle in DEPTHWISE.

``python -m bench tensor_size``: estimated, and synthesised by Yosys (many minutes); ``--quick``: estimated alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearflash.contract.resources import Resources
from nearflash_hw.synthesis.estimate.model import estimate_unit
from nearflash_hw.synthesis.estimate.shallow import Shallow
from nearflash_hw.synthesis.netlist import units
from nearflash_hw.synthesis.yosys import synthesise
from nearflash_hw.tensor.engine import TensorEngine

from .report import progress, show_rows
from .tensor_tile import CONFIG

__all__ = ["measure"]

SMALL = replace(CONFIG, tensor=replace(CONFIG.tensor, packed=True, depthwise=8))
NAMES = ("lut", "ff", "bram18", "dsp")
OWN = "the engine's own: multiplexers"


def measure(quick: bool) -> list[dict[str, Any]]:
    found = units(TensorEngine(SMALL, base=0), room=True, platform=Shallow())
    estimated = {u.path: estimate_unit(f"tensor.{u.path}" if u.path else "tensor", u.rtlil, "xc7") for u in found}
    measured: dict[str, Resources] = {}
    if not quick:
        found = units(TensorEngine(SMALL, base=0), room=True)
        with progress() as bar:
            task = bar.add_task("Yosys", total=len(found), note="")
            for n, u in enumerate(found, 1):
                measured[u.path] = synthesise(u.rtlil, "xc7")
                bar.update(task, completed=n, note=u.path)
    paths = sorted(estimated, key=lambda p: -estimated[p].lut)
    all_of = [("all", sum(estimated.values(), Resources()), sum(measured.values(), Resources()) if measured else None)]
    rows = [{"unit": name, **{f"estimated_{n}_count": getattr(e, n) for n in NAMES},
             **{f"measured_{n}_count": getattr(m, n) if m else None for n in NAMES}}
            for name, e, m in [*((p or OWN, estimated[p], measured.get(p)) for p in paths), *all_of]]
    columns = [(f"{kind}_{n}_count", f"{n}{mark}", ",d") for kind, mark in (("estimated", " est."), ("measured", ""))
               for n in NAMES]
    show_rows("Tensor engine on XC7Z020", [("unit", "unit", ""), *columns], rows)
    return rows
