"""Place and route by nextpnr-xilinx on 7-series parts, where it and a chip database are installed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract.boards import Part

from ..open_flow import CAVEAT
from ..open_flow.netlist_rules import NetlistError, fit_netlist
from ..open_flow.passes import LUT_RAMS, LUT_RAMS_FILE, synthesis_passes
from ..open_flow.route_log import RouteError, check_route
from ..yosys import SynthesisError, run_yosys, yosys_version
from .harness import TOP, harness
from .result import Step, Timing
from .tools import find, nextpnr_version, run_tool, version_of

__all__ = ["CHIPDB", "available", "parse_log", "place_xilinx"]

CHIPDB = "NEXTPNR_XILINX_CHIPDB"  # environment variable: path of the part's database (.bin)
#: Of parts whose database may be used: pins for the harness' ports clk (one with a clock's way in), rst, d and q. Which
#: they are is of no account: what lies between the pins and the harness' first and last registers is not timed.
PINS = {"xc7z020clg400": ("H16", "D19", "D20", "R14"), "xc7a200tfbg676": ("M21", "M26", "T24", "T25"),
        "xc7a35tcsg324": ("E3", "C2", "A8", "H5"), "xc7a100tcsg324": ("E3", "C2", "A8", "H5")}
STANDARD = "LVCMOS33"
SEEDS = 3  # placements tried: the router may fail on one and not on the next

_LINE = re.compile(r"^Info:\s+(?:(clk-to-q|source|logic|routing|setup)\s+)?(-?\d+\.\d+)\s+-?\d+\.\d+\s+"
                   r"(Source|Net|Setup)\s+(\S+)")
_USED = re.compile(r"^Info:\s+([A-Z]\w+):\s+(\d+)/\s*(\d+)\s+\d+%", re.MULTILINE)
#: Rows of its "Device utilisation". A LUT6 is two places of SLICE_LUTX, one for each LUT5.
CELLS = {"SLICE_LUTX": "half_lut", "SLICE_FFX": "ff", "RAMB18E1": "bram18", "RAMB36E1": "bram36", "DSP48E1": "dsp",
         "CARRY4": "carry4"}


def available(part: Part) -> bool:
    """Whether a run for ``part`` is possible here."""
    return part.family == "xc7" and find("nextpnr-xilinx") is not None and bool(os.environ.get(CHIPDB))


def place_xilinx(rtlil: str, part: Part, mhz: float, seconds: int, seeds: int = SEEDS) -> Timing:
    """Timing of module ``\\unit`` of ``rtlil`` inside :func:`.harness.harness`, cached by content and tool versions. The
    part is that of the database; it is a stand-in when the database's name is not that of ``part``. Of ``seeds``
    placements the first that is routed counts.

    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when something is missing, a tool fails or takes more than
    ``seconds``, a cell can't be routed, or no placement is routed completely.
    """
    program, chipdb = find("nextpnr-xilinx"), Path(os.environ.get(CHIPDB, ""))
    if program is None:
        raise SynthesisError("nextpnr-xilinx is not on PATH")
    if not chipdb.is_file():
        raise SynthesisError(f"nextpnr-xilinx needs a chip database: set {CHIPDB} to its file")
    version = nextpnr_version(version_of([program, "--version"]))
    top, flipflops = harness(rtlil)
    pins = _pins(chipdb.stem)
    options = ["--xdc", "pins.xdc", "--json", "unit.json", "--freq", f"{mhz:g}", "--timing-allow-fail"]
    database = f"{chipdb.name} {chipdb.stat().st_size}"
    netlist = _netlist(rtlil, top, seconds)
    folder = cache_dir() / "place" / digest(netlist, pins, version, *options, database, str(seeds))
    with cache_entry(folder) as work:
        if work is not None:
            try:
                (work / "unit.json").write_text(fit_netlist(netlist, pins))
            except NetlistError as e:
                raise SynthesisError(f"nextpnr-xilinx can't take this design: {e}") from e
            (work / "pins.xdc").write_text(pins)
            log = _routed([program, "--chipdb", str(chipdb.resolve()), *options], work, seconds, seeds)
            parse_log(log)  # an unreadable result is not kept
            (work / "unit.json").unlink()
    fmax, path, used, free = parse_log((folder / "nextpnr.log").read_text())
    stand_in = part.name.lower() not in chipdb.stem.lower()
    return Timing("nextpnr-xilinx", version, chipdb.stem, stand_in, fmax, path, sum(s.kind == "logic" for s in path), used,
                  free, harness_ff=flipflops, caveat=CAVEAT)


def _netlist(rtlil: str, top: str, seconds: int) -> str:
    """Yosys' netlist of ``\\unit`` in its harness ``top``, cached."""
    passes = synthesis_passes(["read_rtlil unit.il", "read_verilog harness.v"], TOP, "unit.json")
    folder = cache_dir() / "netlist" / digest(rtlil, top, LUT_RAMS, yosys_version(), *passes)
    with cache_entry(folder) as work:
        if work is not None:
            for name, text in (("unit.il", rtlil), ("harness.v", top), (LUT_RAMS_FILE, LUT_RAMS)):
                (work / name).write_text(text)
            run_yosys(passes, work, ["unit.json"], seconds)
            (work / "unit.il").unlink()
    return (folder / "unit.json").read_text()


def _pins(database: str) -> str:
    """Constraints of the harness' ports on the part of ``database``."""
    name = database.lower().split("-")[0]
    known = [k for k in PINS if name == k or (k.startswith(name) and len(name) >= len("xc7a35t"))]
    if len(known) != 1:
        raise SynthesisError(f"no pins are known for the part of database {database}: known are those of {', '.join(PINS)}")
    return "".join(f"set_property PACKAGE_PIN {pin} [get_ports {port}]\n"
                   f"set_property IOSTANDARD {STANDARD} [get_ports {port}]\n"
                   for port, pin in zip(("clk", "rst", "d", "q"), PINS[known[0]], strict=True))


def _routed(command: list[str], work: Path, seconds: int, seeds: int) -> str:
    """The log of the first seed that is routed completely, in ``nextpnr.log``."""
    failed = []
    for seed in range(1, seeds + 1):
        try:
            log = run_tool([*command, "--seed", str(seed)], work, "nextpnr.log", [], seconds)
            check_route(log)
        except (RouteError, SynthesisError) as e:
            failed.append(f"seed {seed}: {e}")
        else:
            return log
    raise SynthesisError("nextpnr-xilinx routed no placement:\n" + "\n".join(failed))


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
    missing = [name for name in ("SLICE_LUTX", "SLICE_FFX") if CELLS[name] not in cells]
    if missing:
        raise SynthesisError(f"nextpnr's log has no utilisation of {', '.join(missing)}")
    return (float(fmax[-1]), tuple(steps), {k: v[0] for k, v in cells.items()}, {k: v[1] for k, v in cells.items()})
