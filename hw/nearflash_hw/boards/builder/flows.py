"""Tools that make a bitstream: found, run, and what they made checked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract import ConfigError
from nearflash.contract.boards import Board

from ...synthesis.open_flow.bitstream import BitstreamError, check_bitstream
from ...synthesis.place.tools import find, nextpnr_version, run_tool, version_of
from ...synthesis.yosys import SynthesisError
from . import open_flow, vivado

__all__ = ["FLOWS", "Flow", "Made", "choose_flow", "run_flow"]


@dataclass(frozen=True)
class Flow:
    """The tool ``title``. ``programs`` that must be on PATH, ``variables`` that must be set; ``command`` makes
    ``results``/NAME.bit; ``version``: what asks the tool for its own; ``keeps``: reports."""

    name: str
    title: str
    programs: tuple[str, ...]
    variables: tuple[str, ...]
    command: tuple[str, ...]
    version: tuple[str, ...]
    results: str
    keeps: tuple[str, ...]

    def missing(self) -> list[str]:
        """Programs that aren't on PATH and variables that aren't set."""
        return [p for p in self.programs if find(p) is None] + [f"${v}" for v in self.variables if not os.environ.get(v)]


FLOWS = {f.name: f for f in (
    Flow("vivado", "Vivado", ("vivado",), (), ("vivado", "-mode", "batch", "-nojournal", "-nolog", "-source", vivado.SCRIPT),
         ("vivado", "-version"), vivado.RESULT_FOLDER, ("timing.rpt", "utilization.rpt", "drc.rpt")),
    Flow("open", "nextpnr-xilinx", open_flow.PROGRAMS, (open_flow.CHIPDB, open_flow.DATABASE), ("sh", open_flow.SCRIPT),
         ("nextpnr-xilinx", "--version"), open_flow.RESULT_FOLDER, ("nextpnr.log",)),
)}


@dataclass(frozen=True)
class Made:
    """A bitstream that a tool made: its bytes, the tool with its version, and reports by name."""

    bitstream: bytes
    tool: str
    reports: dict[str, str]


def choose_flow(tool: str, board: Board, run: bool | None) -> Flow | None:
    """The flow to run: ``tool`` ("vivado", "open", or "auto": the first that is there), or None for none. ``run``: True asks
    for one, False declines, None takes what there is.

    Raises :class:`~nearflash.contract.ConfigError` for an unknown tool, one that can't take the board's part, and one that
    is asked for and missing."""
    if tool not in ("auto", *FLOWS):
        raise ConfigError("--tool", tool, f"must be auto, {' or '.join(FLOWS)}")
    if tool == "open" and board.part.family != "xc7":
        raise ConfigError("--tool", tool, f"knows 7-series parts alone, not {board.part.name} of {board.name}")
    some = [f for f in FLOWS.values() if tool in ("auto", f.name) and (f.name != "open" or board.part.family == "xc7")]
    if run is False:
        return None
    for flow in some:
        if not flow.missing():
            return flow
    if run or tool != "auto":
        raise ConfigError("--tool", tool, "is missing here: " + "; ".join(
            f"{f.name} needs {', '.join(f.missing())}" for f in some))
    return None


def run_flow(flow: Flow, files: dict[str, str], stem: str, board: Board, seconds: int, say: Callable[[str], None]) -> Made:
    """Run ``flow`` on ``files`` (content by name). Cached by them and the tool's version.

    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` if it fails, takes longer than ``seconds``, or what it made
    is no bitstream for the board's part."""
    version = nextpnr_version(version_of(flow.version))
    folder = cache_dir() / "bitstream" / digest(flow.name, version, *(f"{n}\n{t}" for n, t in sorted(files.items())))
    with cache_entry(folder) as work:
        if work is not None:
            for name, text in files.items():
                (work / name).write_text(text)
            found = f"{flow.results}/{stem}.bit"
            run_tool(flow.command, work, "tool.log", [found], seconds, lambda line: say(_step(flow, line)))
            try:
                check_bitstream((work / found).read_bytes(), board.part.order_code)
            except BitstreamError as e:
                raise SynthesisError(f"{flow.title} made no usable bitstream: {e}") from e
            for name in (f"{stem}.bit", *flow.keeps):
                (work / flow.results / name).replace(work / name)
            shutil.rmtree(work / "run")  # a project is gigabytes
    reports = {name: (folder / name).read_text(errors="replace") for name in flow.keeps}
    return Made((folder / f"{stem}.bit").read_bytes(), f"{flow.title} {version.removeprefix('vivado ')}", reports)


def _step(flow: Flow, line: str) -> str:
    found = re.match(r"nearflash: (.+)", line)
    return f"{flow.title}: {found[1]}" if found else flow.title
