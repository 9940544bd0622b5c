"""Designs for boards, where PYNQ looks for them: ``pynq.Overlay("movietweetings.bit")`` finds the files of the board it
runs on. What a tool made of them, and what not: ``bitstreams/README.md``."""

from __future__ import annotations

from pathlib import Path

from ..board.hwh import device_config, read_hwh
from ..contract import ConfigError, DeviceConfig
from ..contract.boards import Board
from ..contract.shell import DEVICE
from ..quantize.compiled import CompiledModel

__all__ = ["DESIGNS", "compiled_model", "design_config", "overlay_file"]

FOLDER = Path(__file__).parent
DESIGNS = tuple(sorted(p.name for p in FOLDER.iterdir() if (p / f"{p.name}.npz").is_file()))


def overlay_file(design: str, board: Board) -> Path:
    """The hand-off file of ``design`` for ``board``, be it there or not."""
    return FOLDER / design / f"{design}.bit.d" / f"{design}.{board.pynq_name}.hwh"


def design_config(design: str, board: Board) -> DeviceConfig:
    """The device of ``design`` on ``board``. Raises :class:`ConfigError` for a design that doesn't ship, or not for that
    board."""
    path = overlay_file(design, board)
    if design not in DESIGNS or not path.is_file():
        raise ConfigError("design", design, f"must be one that ships ({', '.join(DESIGNS)}), for a board of PYNQ")
    return device_config(read_hwh(path).ips[DEVICE].parameters)


def compiled_model(design: str) -> CompiledModel:
    """The model that ships with ``design``; :meth:`~nearflash.quantize.CompiledModel.on` puts it on a board's device."""
    return CompiledModel.load(FOLDER / design / f"{design}.npz")
