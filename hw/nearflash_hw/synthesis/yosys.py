"""Yosys in a process of its own: a script in, files out, and an error for anything that ends early."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract import ConfigError, NearflashError
from nearflash.contract.resources import Resources

from .cell_libraries import PORTS_FILE, READ_LIBRARIES, ports_alone

__all__ = ["FAMILIES", "WITH_MEMORIES", "ControlSet", "SynthesisError", "control_sets", "run_yosys", "synthesis_key",
           "synthesise", "yosys_version"]

#: The nets of a flip-flop's clock, enable and set or reset, as RTLIL writes them ("" where it has no such pin).
ControlSet = tuple[str, str, str]

FAMILIES = ("xc7", "xcup")
#: Flip-flops that an enable or a reset must have for Vivado to keep it (UG949, "Controlling Enable/Reset Extraction with
#: Synthesis Attributes": the default -control_set_opt_threshold); the logic of smaller ones goes before the flip-flop's D.
CONTROL_SET_THRESHOLD = {"xc7": 4, "xcup": 2}
SECONDS = 1800  # cap on one unit
#: LUTs that a distributed memory or shift register occupies.
LUTRAM = {"SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1, "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4,
          "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8, "RAM512X1S": 8, "RAM32M": 4, "RAM64M": 4,
          "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8}
BRAM18 = {"RAMB18E1": 1, "RAMB36E1": 2, "RAMB18E2": 1, "RAMB36E2": 2}
#: Cells without a resource of their own: MUXF7/8/9 are part of a slice, INV is absorbed or counted as a LUT below.
FREE = {"MUXF7", "MUXF8", "MUXF9", "GND", "VCC", "BUFG", "IBUF", "OBUF", "$scopeinfo"}
NAME_CLASH = "count_id(wire->name)"  # Yosys 0.70 trips over its own wire names on some designs; without names it doesn't
RESETS = ("R", "S", "CLR", "PRE")
_FLIP_FLOP = re.compile(r"^ *cell \\FD\w+ .*?^ *end$", re.MULTILINE | re.DOTALL)
_PIN = re.compile(r"^ *connect \\(\w+) (.*)$", re.MULTILINE)
#: Begins a pass that is left out where the design has no memory: reading the maps of memories takes two seconds.
WITH_MEMORIES = "memories? "
CHILD = f"""
import sys
from pyosys import libyosys as y
d = y.Design()
for line in open(sys.argv[1]):
    wanted = line.strip().removeprefix({WITH_MEMORIES!r})
    if wanted == line.strip() or any(c.type.str() == "$mem_v2" for m in d.modules_.values() for c in m.cells_.values()):
        y.run_pass(wanted, d)
"""


class SynthesisError(NearflashError):
    """A synthesis tool is missing, failed, or ended without its result."""


def yosys_version() -> str:
    """Raises :class:`SynthesisError` if Yosys isn't installed."""
    if importlib.util.find_spec("pyosys") is None:
        raise SynthesisError("Yosys is missing: pip install pyosys (or nearflash[synthesis])")
    return importlib.metadata.version("pyosys")


def run_yosys(lines: Sequence[str], folder: Path, results: Sequence[str], seconds: int = SECONDS) -> None:
    """Run passes in ``folder``, where ``results`` must lie afterwards. A line that begins with :data:`WITH_MEMORIES` is for
    a design that has some.

    Raises :class:`SynthesisError` with the end of Yosys' log (``yosys.log``) for a failure, a time-out, or a missing result.
    """
    yosys_version()
    script = folder / "script.ys"
    script.write_text("\n".join(lines) + "\n")
    log = folder / "yosys.log"
    with log.open("w") as out:
        try:
            code = subprocess.run([sys.executable, "-c", CHILD, script.name], cwd=folder, stdout=out, stderr=out,
                                  timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired as e:
            raise SynthesisError(f"Yosys took more than {seconds} s (log: {log})") from e
    missing = [r for r in results if not (folder / r).is_file() or not (folder / r).stat().st_size]
    if code or missing:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SynthesisError(f"Yosys ended with code {code}, without {', '.join(missing) or 'nothing missing'}:\n{tail}")
    log.unlink()  # tens of megabytes when all went well


def synthesise(rtlil: str, family: str) -> Resources:
    """Resources of module ``\\unit`` of ``rtlil``, flattened, for a Xilinx family. Cached by content and tool version.

    Raises :class:`~nearflash.contract.ConfigError` for another family, :class:`SynthesisError` when Yosys fails or maps to
    a cell whose resources aren't known.
    """
    return _resources(_cells((_synthesised(rtlil, family) / "stat.json").read_text()))


def control_sets(rtlil: str, family: str) -> Counter[ControlSet]:
    """How many flip-flops each control set of the same synthesis has. Raises as :func:`synthesise`."""
    found: Counter[ControlSet] = Counter()
    for cell in _FLIP_FLOP.findall((_synthesised(rtlil, family) / "flip_flops.il").read_text()):
        pins = dict(_PIN.findall(cell))
        found[pins.get("C", ""), pins.get("CE", ""), next((pins[p] for p in RESETS if p in pins), "")] += 1
    return found


def synthesis_key(rtlil: str, family: str) -> str:
    """What the resources of module ``\\unit`` follow from: its text, the tool's version and the passes. Raises
    :class:`~nearflash.contract.ConfigError` for an unknown family."""
    return digest(rtlil, yosys_version(), *_passes(family))


def _passes(family: str) -> list[str]:
    if family not in FAMILIES:
        raise ConfigError("family", family, f"must be one of {FAMILIES}")
    synth = f"synth_xilinx -family {family} -flatten -noiopad -noclkbuf -top unit{' -uram' if family == 'xcup' else ''}"
    least = CONTROL_SET_THRESHOLD[family]
    return ["read_rtlil unit.il", "hierarchy -top unit", *READ_LIBRARIES, "hierarchy -check -top unit",
            f"{synth} -run prepare:map_memory",
            f"{WITH_MEMORIES}{synth} -run map_memory:map_ffram", f"{synth} -run map_ffram:map_ffs",
            f"dfflegalize -mince {least} -minsrst {least} "
            "-cell $_DFFE_?P?P_ 01 -cell $_SDFFE_?P?P_ 01 -cell $_DLATCH_?P?_ 01",
            f"{synth} -run map_ffs:",
            "tee -q -o stat.json stat -json", "dump -o flip_flops.il t:FD*"]


def _synthesised(rtlil: str, family: str) -> Path:
    """Folder with what Yosys made of module ``\\unit``."""
    folder = cache_dir() / "synthesis" / synthesis_key(rtlil, family)
    with cache_entry(folder) as work:
        if work is not None:
            passes = _passes(family)
            (work / "unit.il").write_text(rtlil)
            (work / PORTS_FILE).write_text(ports_alone(rtlil, family))
            try:
                run_yosys(passes, work, ["stat.json"])
            except SynthesisError as e:
                if NAME_CLASH not in str(e):
                    raise
                run_yosys([*passes[:2], "rename -hide w:*", *passes[2:]], work, ["stat.json"])
            _cells((work / "stat.json").read_text())  # an unreadable result is not kept
            for name in ("unit.il", PORTS_FILE):
                (work / name).unlink()
    return folder


def _cells(text: str) -> dict[str, int]:
    """Cell counts by type of the module that was synthesised."""
    try:
        modules = json.loads(text)["modules"]
        (cells,) = (m["num_cells_by_type"] for name, m in modules.items() if name.lstrip("\\") == "unit")
    except (ValueError, KeyError) as e:
        raise SynthesisError(f"Yosys' statistics can't be read: {e}") from e
    return cells


def _resources(cells: dict[str, int]) -> Resources:
    lut = lutram = ff = bram18 = uram = dsp = carry = 0
    for name, n in cells.items():
        if name.startswith("unit."):  # a black box: another unit
            continue
        if name.startswith("LUT") or name == "INV":
            lut += n
        elif name in LUTRAM:
            lutram += n * LUTRAM[name]
        elif name.startswith("FD"):
            ff += n
        elif name in BRAM18:
            bram18 += n * BRAM18[name]
        elif name == "URAM288":
            uram += n
        elif name.startswith("DSP48"):
            dsp += n
        elif name.startswith("CARRY"):
            carry += n * int(name[5:])
        elif name not in FREE:
            raise SynthesisError(f"Yosys mapped to {n} cells {name}, whose resources are not known")
    return Resources(lut + lutram, lutram, ff, bram18, uram, dsp, carry)
