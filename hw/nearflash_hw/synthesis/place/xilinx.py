"""Place and route by nextpnr-xilinx on 7-series parts, where it and a chip database are installed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract.boards import Part

from ..yosys import SynthesisError, run_yosys, yosys_version
from .harness import TOP, harness
from .result import Step, Timing
from .tools import find, nextpnr_version, run_tool, version_of

__all__ = ["CHIPDB", "available", "parse_log", "place_xilinx"]

CHIPDB = "NEXTPNR_XILINX_CHIPDB"  # environment variable: path of the part's database (.bin)

_LINE = re.compile(r"^Info:\s+(?:(clk-to-q|source|logic|routing|setup)\s+)?(-?\d+\.\d+)\s+-?\d+\.\d+\s+"
                   r"(Source|Net|Setup)\s+(\S+)")
_USED = re.compile(r"^Info:\s+([A-Z]\w+):\s+(\d+)/\s*(\d+)\s+\d+%", re.MULTILINE)
CELLS = {"SLICE_LUTX": "lut", "SLICE_FFX": "ff", "RAMB18E1_RAMB18E1": "bram18", "RAMB36E1_RAMB36E1": "bram36",
         "DSP48E1_DSP48E1": "dsp", "CARRY4": "carry4"}


def available(part: Part) -> bool:
    """Whether a run for ``part`` is possible here."""
    return part.family == "xc7" and find("nextpnr-xilinx") is not None and bool(os.environ.get(CHIPDB))


def place_xilinx(rtlil: str, part: Part, mhz: float, seconds: int, seed: int = 1) -> Timing:
    """Timing of module ``\\unit`` of ``rtlil`` inside :func:`.harness.harness`, cached by content and tool versions. The
    part is that of the database; it is a stand-in when the database's name is not that of ``part``.

    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when something is missing, a tool fails, or takes more than
    ``seconds``.
    """
    program, chipdb = find("nextpnr-xilinx"), Path(os.environ.get(CHIPDB, ""))
    if program is None:
        raise SynthesisError("nextpnr-xilinx is not on PATH")
    if not chipdb.is_file():
        raise SynthesisError(f"nextpnr-xilinx needs a chip database: set {CHIPDB} to its file")
    version = nextpnr_version(version_of([program, "--version"]))
    top, flipflops = harness(rtlil)
    passes = ["read_rtlil unit.il", "read_verilog harness.v", f"hierarchy -top {TOP}", "flatten",
              f"synth_xilinx -family {part.family} -abc9 -top {TOP}", "write_json unit.json"]
    options = ["--json", "unit.json", "--freq", f"{mhz:g}", "--seed", str(seed), "--timing-allow-fail"]
    database = f"{chipdb.name} {chipdb.stat().st_size}"
    folder = cache_dir() / "place" / digest(rtlil, top, yosys_version(), version, *passes, *options, database)
    with cache_entry(folder) as work:
        if work is not None:
            (work / "unit.il").write_text(rtlil)
            (work / "harness.v").write_text(top)
            run_yosys(passes, work, ["unit.json"], seconds)
            log = run_tool([program, "--chipdb", str(chipdb.resolve()), *options], work, "nextpnr.log", [], seconds)
            parse_log(log)  # an unreadable result is not kept
            for name in ("unit.il", "unit.json"):
                (work / name).unlink()
    fmax, path, used, free = parse_log((folder / "nextpnr.log").read_text())
    stand_in = part.name.lower() not in chipdb.stem.lower()
    return Timing("nextpnr-xilinx", version, chipdb.stem, stand_in, fmax, path, sum(s.kind == "logic" for s in path), used,
                  free, harness_ff=flipflops)


def parse_log(text: str) -> tuple[float, tuple[Step, ...], dict[str, int], dict[str, int]]:
    """Fmax (MHz), critical path, cells used and available. Both of nextpnr's styles of paths; the last report counts,
    which is the one after routing."""
    fmax = re.findall(r"^Info: Max frequency for clock\s+'[^']+': ([\d.]+) MHz", text, re.MULTILINE)
    paths = re.split(r"^Info: Critical path report for clock [^\n]*\n", text, flags=re.MULTILINE)
    steps: list[Step] = []
    for line in paths[-1].splitlines() if len(paths) > 1 else ():
        if not line.startswith("Info:  ") and steps:
            break
        if m := _LINE.match(line):
            first = "clk-to-q" if not steps else "logic"
            steps.append(Step(m[1] or {"Source": first, "Net": "routing", "Setup": "setup"}[m[3]], float(m[2]), m[4]))
    if not fmax or not steps:
        raise SynthesisError("nextpnr's log has no critical path: it ended early, or the design has no clock")
    cells = {CELLS[name]: (int(used), int(of)) for name, used, of in _USED.findall(text) if name in CELLS}
    return (float(fmax[-1]), tuple(steps), {k: v[0] for k, v in cells.items()}, {k: v[1] for k, v in cells.items()})
