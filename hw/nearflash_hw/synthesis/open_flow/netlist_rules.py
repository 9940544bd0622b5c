"""Makes Yosys' JSON netlist fit for nextpnr-xilinx, or says by name what it would trip over: before it runs for an hour.

As a program: ``python3 netlist_rules.py NETLIST.json PINS.xdc`` rewrites the netlist, or ends with code 1 and the reasons.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["NetlistError", "fit_netlist"]

#: Cells that were seen routed with every set bit documented, and those that become none.
KNOWN = frozenset({
    "LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "MUXF7", "MUXF8", "CARRY4", "INV", "FDRE", "FDSE", "FDCE", "FDPE",
    "RAM32M", "RAM64M", "RAM64X1D", "RAM128X1D", "SRL16E", "SRLC32E", "RAMB18E1", "RAMB36E1", "DSP48E1", "BUFG", "IBUF",
    "OBUF", "PS7", "GND", "VCC"})
LUT_RAMS = frozenset({"RAM32M", "RAM64M", "RAM64X1D", "RAM128X1D"})
CASCADES = ("CASCADEINA", "CASCADEINB", "CASCADEOUTA", "CASCADEOUTB")
SHOWN = 5  # names of each complaint
_PIN = re.compile(r"^set_property\s+(PACKAGE_PIN|IOSTANDARD)\s+\S+\s+\[get_ports\s+\{?(\w+(?:\[\d+\])?)\}?\s*\]",
                  re.MULTILINE)


class NetlistError(ValueError):
    """A netlist that nextpnr-xilinx can't place and route, or would only seem to."""


def fit_netlist(text: str, pins: str) -> str:
    """The netlist ``text`` (its top module flat) without LUT RAM outputs that nobody reads. ``pins``: text of an XDC file.

    Raises :class:`NetlistError` for cells that aren't known to be routed, among them what flattening leaves behind,
    cascaded block RAMs and shift registers; for undefined inputs; and for a port without a pin or an IOSTANDARD.
    """
    try:
        design = json.loads(text)
        (module,) = [m for m in design["modules"].values() if int(m.get("attributes", {}).get("top", "0"), 2)]
        cells, ports = module["cells"], module["ports"]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise NetlistError(f"not a netlist with a top module: {e!r}") from e
    read = _read_bits(cells, ports)
    wrong = [*_unknown(cells), *_cascades(cells, read), *_undefined(cells), *_pins(ports, pins)]
    if wrong:
        raise NetlistError("; ".join(wrong))
    for cell in cells.values():
        if cell["type"] in LUT_RAMS:
            for port in [p for p in cell["connections"] if _open(cell, p, read)]:
                del cell["connections"][port]
    return json.dumps(design, indent=1) + "\n"


def _read_bits(cells: dict[str, Any], ports: dict[str, Any]) -> set[Any]:
    bits = {b for p in ports.values() if p["direction"] != "input" for b in p["bits"]}
    return bits | {b for c in cells.values() for p, some in c["connections"].items()
                   if c["port_directions"].get(p) != "output" for b in some}


def _open(cell: dict[str, Any], port: str, read: set[Any]) -> bool:
    return cell["port_directions"].get(port) == "output" and not any(b in read for b in cell["connections"][port])


def _unknown(cells: dict[str, Any]) -> list[str]:
    found = Counter(c["type"] for c in cells.values() if c["type"] not in KNOWN)
    return [f"{n} cells of type {kind}, which nextpnr-xilinx is not known to route" for kind, n in sorted(found.items())]


def _cascades(cells: dict[str, Any], read: set[Any]) -> list[str]:
    block = [name for name, c in cells.items() if c["type"] == "RAMB36E1" and (
        any(c["parameters"].get(f"RAM_EXTENSION_{s}", "NONE").strip() != "NONE" for s in "AB")
        or any(isinstance(b, int) and b in read for p in CASCADES for b in c["connections"].get(p, ())))]
    shift = [name for name, c in cells.items() if c["type"] == "SRLC32E" and "Q31" in c["connections"]
             and not _open(c, "Q31", read)]
    return [*_complaint("cascaded RAMB36E1", block), *_complaint("cascaded SRLC32E (Q31)", shift)]


def _undefined(cells: dict[str, Any]) -> list[str]:
    return _complaint("undefined inputs (x)", [f"{name}.{port}" for name, c in cells.items() for port, bits in
                                               c["connections"].items()
                                               if c["port_directions"].get(port) != "output" and "x" in bits])


def _pins(ports: dict[str, Any], pins: str) -> list[str]:
    given = {kind: {name for k, name in _PIN.findall(pins) if k == kind} for kind in ("PACKAGE_PIN", "IOSTANDARD")}
    wanted = [name if len(p["bits"]) == 1 else f"{name}[{i}]" for name, p in ports.items() for i in range(len(p["bits"]))]
    out = []
    for kind, names in given.items():
        out += _complaint(f"ports without {kind}", [w for w in wanted if w not in names])
    return out


def _complaint(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what}: {', '.join(names[:SHOWN])}{more}"] if names else []


if __name__ == "__main__":
    netlist = Path(sys.argv[1])
    try:
        fitted = fit_netlist(netlist.read_text(), Path(sys.argv[2]).read_text())
    except NetlistError as error:
        sys.exit(f"{netlist}: {error}")
    netlist.write_text(fitted)
