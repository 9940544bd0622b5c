"""Delays of 7-series cells, from the ``specify`` blocks of the cell library that Yosys ships.

Where they come from is said there, cell by cell: project X-Ray's database for the Artix-7, worst case of its slow corner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..yosys import run_yosys

__all__ = ["CellDelays", "CellKind", "cell_delays", "kind_of_cell"]

#: A cell's type, and those of its parameters that its delays depend on.
CellKind = tuple[str, tuple[tuple[str, str], ...]]
Pin = tuple[str, int]  # port, bit

LIBRARY = "+/xilinx/cells_sim.v"
PLAIN = ("LUT", "FD", "MUXF", "INV", "CARRY", "RAM32", "RAM64", "RAM128", "SRL")  # cells whose delays are always the same
_CHANGES = re.compile(r"REG$|^USE_|^DO[AB]_REG$|^RAM_MODE$")


@dataclass(frozen=True)
class CellDelays:
    """In ns. ``through``: from inputs, to each output; ``from_clock``: clock edge to output; ``setup``: input to edge."""

    through: dict[Pin, dict[Pin, float]] = field(default_factory=dict)
    from_clock: dict[Pin, float] = field(default_factory=dict)
    setup: dict[Pin, float] = field(default_factory=dict)


def kind_of_cell(cell: dict[str, Any]) -> CellKind:
    """Of a cell of Yosys' JSON netlist."""
    if cell["type"].startswith(PLAIN):
        return cell["type"], ()
    kept = [(k, v) for k, v in sorted(cell["parameters"].items()) if _CHANGES.search(k)]
    return cell["type"], tuple((k, str(int(v, 2)) if re.fullmatch("[01]+", str(v)) else f'"{v}"') for k, v in kept)


def cell_delays(kinds: Iterable[CellKind], folder: Path, seconds: int) -> dict[CellKind, CellDelays]:
    """Delays of ``kinds``; Yosys runs in ``folder``. Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError`."""
    named = {f"u{i}": kind for i, kind in enumerate(sorted(set(kinds)))}
    cells = []
    for name, (cell, parameters) in named.items():
        given = ", ".join(f".{k}({v})" for k, v in parameters)
        cells.append(f"  {cell} {f'#({given}) ' if given else ''}{name} ();")
    (folder / "kinds.v").write_text("\n".join(["module kinds;", *cells, "endmodule", ""]))
    run_yosys([f"read_verilog -specify -D YOSYS {LIBRARY}", "read_verilog kinds.v", "hierarchy -top kinds", "proc",
               "memory_collect", "write_json kinds.json"], folder, ["kinds.json"], seconds)
    modules = json.loads((folder / "kinds.json").read_text())["modules"]
    for name in ("kinds.v", "kinds.json"):
        (folder / name).unlink()
    return {named[name]: _delays(modules[cell["type"]]) for name, cell in modules["kinds"]["cells"].items()}


def _delays(module: dict[str, Any]) -> CellDelays:
    pins = {bit: (name, i) for name, port in module["ports"].items() for i, bit in enumerate(port["bits"])}
    out = CellDelays()
    for cell in module["cells"].values():
        p, wires = cell["parameters"], cell["connections"]
        if cell["type"] == "$specify2":
            ends = [[pins[b] for b in wires[side] if b in pins] for side in ("SRC", "DST")]
            pairs = [(s, d) for s in ends[0] for d in ends[1]] if int(p["FULL"], 2) else zip(*ends, strict=False)
            for s, d in pairs:
                known = out.through.setdefault(d, {})
                known[s] = max(known.get(s, 0.0), _ns(p["T_RISE_MAX"]))
        elif cell["type"] == "$specify3":
            _raise(out.from_clock, pins, wires["DST"], _ns(p["T_RISE_MAX"]))
        elif cell["type"] == "$specrule" and p["TYPE"] == "$setup":
            _raise(out.setup, pins, wires["SRC"], _ns(p["T_LIMIT_MAX"]))
    return out


def _raise(delays: dict[Pin, float], pins: dict[int, Pin], bits: list[Any], ns: float) -> None:
    for bit in bits:
        if bit in pins:
            delays[pins[bit]] = max(delays.get(pins[bit], 0.0), ns)


def _ns(picoseconds: str) -> float:
    """A delay is undefined where the cell has no such path, and never negative here."""
    if "x" in picoseconds:
        return 0.0
    value = int(picoseconds, 2)
    return 0.0 if len(picoseconds) == 32 and value >> 31 else value / 1e3
