"""From a device's configuration to a folder that makes a board's bitstream, and to the bitstream where a tool is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearflash.board.hwh import write_hwh
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources
from nearflash.contract.shell import MANIFEST

from .constraints import vivado_constraints
from .flows import Made, choose_flow, run_flow
from .folder import check_folder, whole_folder
from .generated import estimate, verilog
from .manifest import manifest, sha256
from .open_flow import SCRIPT as OPEN_SCRIPT
from .open_flow import open_flow_files
from .readme import README, readme
from .vivado import SCRIPT, vivado_script

__all__ = ["Build", "Built"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """Content of a build's folder by name, and the estimated resources of its device and shell."""

    files: dict[str, str]
    used: Resources


class Build:
    """One build of a device for ``board``, called ``stem``, into folder ``out``; what a tool makes of it is filed under
    ``bitstreams``/board/stem.

    Checks, before any work, that the folders may be written and that the tool that is asked for is there. Raises
    :class:`~nearflash.contract.ConfigError` where not, and for a board without a processing system; ``OSError`` for a
    folder that can't be made.
    """

    def __init__(self, board: Board, stem: str, out: Path, tool: str = "auto", run: bool | None = None,
                 bitstreams: Path = Path("bitstreams")):
        if board.ps is None:
            raise ConfigError("--board", board.name, "has no processing system that a shell is generated for")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", stem):
            raise ConfigError("name", stem, "must be of letters, digits and _ . -: every file of the build is called so")
        self.board, self.ps, self.stem, self.out = board, board.ps, stem, out
        self.flow = choose_flow(tool, board, run)
        self.filed = bitstreams / board.name / stem
        check_folder("--out", out)
        if self.flow is not None:
            check_folder("--bitstreams", self.filed)

    def contents(self, config: DeviceConfig, predicted: Mapping[str, float], say: Say = lambda text: None) -> Built:
        """Every file of the folder; the same for the same arguments. Raises :class:`~nearflash.contract.ConfigError` for a
        device that can't fit the part."""
        used = estimate(config, self.board, say)
        over = {name: share for name, share in used.shares(self.board.part).items() if share > 1}
        if over:
            raise ConfigError("device", config.name, f"can't fit {self.board.part.name}: estimated at " + ", ".join(
                f"{share:.0%} of its {name}" for name, share in over.items()))
        files = {
            f"{self.stem}.v": verilog(config, self.board, say), f"{self.stem}.hwh": write_hwh(config, self.board, self.stem),
            f"{self.stem}.xdc": vivado_constraints(config, self.board, self.ps),
            SCRIPT: vivado_script(config, self.board, self.ps, self.stem),
            README: readme(config, self.board, self.ps, self.stem)}
        if self.ps.axi == 3:
            files |= open_flow_files(config, self.board, self.stem)
        files[MANIFEST] = manifest(config, self.board, self.stem, used, predicted, files, None)
        return Built(files, used)

    def write(self, built: Built) -> None:
        """Write the folder, whole or not at all; one that an earlier build wrote is replaced."""
        with whole_folder("--out", self.out) as part:
            for name, text in built.files.items():
                (part / name).write_text(text)
            if OPEN_SCRIPT in built.files:
                (part / OPEN_SCRIPT).chmod(0o755)

    def make_bitstream(self, config: DeviceConfig, predicted: Mapping[str, float], built: Built, seconds: int, say: Say
                       ) -> dict[str, Any] | None:
        """Run the tool and file what it made, with its hand-off file, manifest and reports; None without a tool.

        Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` if the tool fails."""
        if self.flow is None:
            return None
        made = run_flow(self.flow, {n: t for n, t in built.files.items() if n not in (MANIFEST, README)}, self.stem,
                        self.board, seconds, say)
        return self._file(config, predicted, built, made)

    def _file(self, config: DeviceConfig, predicted: Mapping[str, float], built: Built, made: Made) -> dict[str, Any]:
        said = {"tool": made.tool, "sha256": sha256(made.bitstream), "bytes": len(made.bitstream)}
        files = {f"{self.stem}.hwh": built.files[f"{self.stem}.hwh"], **made.reports}
        text = manifest(config, self.board, self.stem, built.used, predicted, {**built.files, **made.reports}, said)
        with whole_folder("--bitstreams", self.filed) as part:
            for name, content in {**files, MANIFEST: text}.items():
                (part / name).write_text(content)
            (part / f"{self.stem}.bit").write_bytes(made.bitstream)
        return said
