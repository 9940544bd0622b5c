"""What the virtual board puts into its fabric for an overlay: the device whose configuration the hand-off file carries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from nearflash.board.hwh import device_config, read_hwh
from nearflash.contract import DeviceConfig, NearflashError
from nearflash.contract.boards import Board
from nearflash.contract.shell import DEVICE, MANIFEST

from .errors import ForeignOverlay, StaleOverlay

__all__ = ["read_overlay"]


def read_overlay(bitfile: str, board: Board) -> DeviceConfig:
    """The configuration of the device in the overlay whose ``.bit`` would be ``bitfile``.

    Raises :class:`ForeignOverlay` for one that ``nearflash build`` did not make, or for another board;
    :class:`StaleOverlay` where the manifest beside it is of another build than the hand-off file.
    """
    path = Path(bitfile).with_suffix(".hwh")
    try:
        hwh = read_hwh(path)
        config = device_config(hwh.ips[DEVICE].parameters)
    except (NearflashError, KeyError, ValueError, OSError) as e:
        raise ForeignOverlay(f"{path}: not the hand-off file of `nearflash build` ({type(e).__name__}: {e}), so there is "
                             "nothing to simulate") from e
    if hwh.ps_kind != (board.ps.kind if board.ps else ""):
        raise ForeignOverlay(f"{path}: made for a {hwh.ps_kind}, and {board.name} has a "
                             f"{board.ps.kind if board.ps else 'nothing'}")
    manifest = path.with_name(MANIFEST)
    if manifest.is_file():
        _compare(manifest, path)
    return config


def _compare(manifest: Path, hwh: Path) -> None:
    try:
        wanted = json.loads(manifest.read_text())["files"][hwh.name]
    except (ValueError, KeyError, TypeError) as e:
        raise StaleOverlay(f"{manifest}: does not list {hwh.name} ({type(e).__name__}: {e}): it is of another build") from e
    found = hashlib.sha256(hwh.read_bytes()).hexdigest()
    if found != wanted:
        raise StaleOverlay(f"{hwh}: sha256 is {found[:16]}, {manifest.name} says {str(wanted)[:16]}: these files are of "
                           "different builds; copy the whole folder again")
