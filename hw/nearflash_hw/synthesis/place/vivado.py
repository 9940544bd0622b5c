"""Place and route by Vivado, out of context, on the part itself, where it is installed."""

from __future__ import annotations

import re

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract.boards import Part

from ..yosys import SynthesisError, run_yosys, yosys_version
from .harness import TOP, harness
from .result import Step, Timing
from .tools import find, run_tool, version_of

__all__ = ["parse_timing", "parse_utilization", "place_vivado", "script"]

REPORTS = ("timing.rpt", "utilization.rpt")
#: Columns of ``report_utilization -hierarchical`` and what they are called here; names differ between versions.
COLUMNS = {"Total LUTs": "lut", "LUTRAMs": "lutram", "SRLs": "srl", "FFs": "ff", "RAMB36": "bram36", "RAMB18": "bram18",
           "URAM": "uram", "DSP Blocks": "dsp", "DSP48 Blocks": "dsp", "DSPs": "dsp"}

_ROW = re.compile(r"^.*?(net \(fo=[^)]*\)|\w+ \((?:Prop|SetFF)\w*\S*\))\s+(-?\d+\.\d+)\s+-?\d+\.\d+\s+(?:[rf]\s+)?(\S+)\s*$")
#: Slack, logic levels, and the data path: the part between the second and the third rule.
_DETAIL = re.compile(r"^Slack[^\n]*:\s+-?[\d.]+ns.*?^\s+Logic Levels:\s+(\d+).*?"
                     r"^  -{20}[^\n]*\n.*?^  -{20}[^\n]*\n(.*?)^  -{20}", re.MULTILINE | re.DOTALL)
_WRAPPED = re.compile(r"(\((?:Prop|SetFF)[^()]*\))[ ]*\n[ ]+(?=-?\d)")


def script(part: str, mhz: float) -> str:
    """Tcl that places and routes ``unit.v`` and writes :data:`REPORTS`."""
    return "\n".join((
        "read_verilog unit.v",
        f"synth_design -top {TOP} -part {part} -mode out_of_context",
        f"create_clock -name clk -period {1e3 / mhz:.3f} [get_ports clk]",
        "opt_design", "place_design", "phys_opt_design", "route_design",
        f"report_timing_summary -delay_type max -max_paths 1 -no_reused_label -file {REPORTS[0]}",
        f"report_utilization -hierarchical -hierarchical_depth 3 -file {REPORTS[1]}", "exit", ""))


def place_vivado(rtlil: str, part: Part, mhz: float, seconds: int) -> Timing:
    """Timing of module ``\\unit`` of ``rtlil`` inside :func:`.harness.harness`, cached by content and tool versions.

    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when Vivado is missing, fails, or takes more than
    ``seconds``.
    """
    vivado = find("vivado")
    if vivado is None:
        raise SynthesisError("Vivado is not on PATH")
    version, code = version_of([vivado, "-version"]), part.order_code
    top, flipflops = harness(rtlil)
    passes = ["read_rtlil unit.il", "read_verilog harness.v", f"hierarchy -top {TOP}", "proc", "memory_collect", "clean",
              "write_verilog -norename -noattr unit.v"]
    tcl = script(code, mhz)
    folder = cache_dir() / "place" / digest(rtlil, top, yosys_version(), version, *passes, tcl)
    with cache_entry(folder) as work:
        if work is not None:
            (work / "unit.il").write_text(rtlil)
            (work / "harness.v").write_text(top)
            (work / "run.tcl").write_text(tcl)
            run_yosys(passes, work, ["unit.v"], seconds)
            run_tool([vivado, "-mode", "batch", "-nojournal", "-nolog", "-source", "run.tcl"], work, "vivado.log", REPORTS,
                     seconds)
            for read, name in zip((parse_timing, parse_utilization), REPORTS, strict=True):
                read((work / name).read_text())  # an unreadable result is not kept
            (work / "unit.il").unlink()
    wns, levels, path = parse_timing((folder / REPORTS[0]).read_text())
    used = parse_utilization((folder / REPORTS[1]).read_text())
    return Timing("Vivado", version, code, False, 1e3 / (1e3 / mhz - wns), path, levels, used, harness_ff=flipflops)


def parse_timing(text: str) -> tuple[float, int, tuple[Step, ...]]:
    """Of a ``report_timing_summary``: worst slack (ns), logic levels, and the path that has it."""
    table = re.search(r"WNS\(ns\)[^\n]*\n[ -]+\n\s*(\S+)", text)
    detail = _DETAIL.search(text)
    if table is None or detail is None or table[1] == "NA":
        raise SynthesisError("Vivado's timing summary has no constrained path")
    steps: list[Step] = []
    for line in _WRAPPED.sub(r"\1 ", detail[2]).splitlines():
        if m := _ROW.match(line):
            kind = "routing" if m[1].startswith("net") else "logic" if steps else "clk-to-q"
            steps.append(Step(kind, float(m[2]), m[3] if kind == "routing" else f"{m[3]} {m[1].split()[0]}"))
    if not steps:
        raise SynthesisError("Vivado's critical path can't be read")
    return float(table[1]), int(detail[1]), tuple(steps)


def parse_utilization(text: str) -> dict[str, int]:
    """Of a ``report_utilization -hierarchical``: the unit's row, or the top's where the hierarchy is gone."""
    rows = [[c.strip() for c in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    heads = [r for r in rows if r[0] == "Instance"]
    found = {r[0]: r for r in reversed(rows) if heads and len(r) == len(heads[0]) and r is not heads[0]}
    row = found.get("unit") or found.get(TOP)
    if row is None:
        raise SynthesisError("Vivado's utilization report has no row of the unit")
    return {COLUMNS[h]: int(v) for h, v in zip(heads[0], row, strict=True) if h in COLUMNS}
