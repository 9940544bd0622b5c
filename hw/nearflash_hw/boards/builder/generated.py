"""A shell's Verilog and the estimate of it with its device: what takes seconds to minutes, cached by content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources

from ...sources import gateware_digest
from ...synthesis.estimate import Estimator

__all__ = ["estimate", "verilog"]


def verilog(config: DeviceConfig, board: Board, say: Callable[[str], None] = lambda text: None) -> str:
    """The shell around ``config``'s device: module ``nearflash_top`` with its processing system, or ``nearflash_shell``."""
    folder = cache_dir() / "shell" / digest(gateware_digest("synthesis", "builder"), config.to_toml(), board.name)
    with cache_entry(folder) as work:
        if work is not None:
            from ..shell import shell_verilog

            say("generating the Verilog")
            (work / "shell.v").write_text(shell_verilog(config, board))
    return (folder / "shell.v").read_text()


def estimate(config: DeviceConfig, board: Board, say: Callable[[str], None] = lambda text: None) -> Resources:
    """Estimated resources of the whole device and its shell."""
    folder = cache_dir() / "estimate" / digest(gateware_digest("builder"), config.to_toml(), board.name)
    with cache_entry(folder) as work:
        if work is not None:
            say("estimating resources")
            estimator = Estimator(board.part.family)
            total = sum(estimator.device(config).values(), estimator.shell(config, board))
            (work / "total.json").write_text(json.dumps(asdict(total)))
    return Resources(**json.loads((folder / "total.json").read_text()))
