"""Timing of a device or one of its blocks, placed and routed or before that: its frequency and the path that limits it."""

from __future__ import annotations

from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import Board

from ...device import Device
from ..netlist import subtree
from ..yosys import SynthesisError
from . import xilinx
from .ecp5 import place_ecp5
from .result import Timing
from .tools import find
from .unplaced import time_unplaced
from .vivado import place_vivado

__all__ = ["TOOLS", "Timing", "choose", "timing"]

TOOLS = ("auto", "vivado", "nextpnr-xilinx", "ecp5", "unplaced")
SECONDS = 3600  # cap on each of synthesis and placement


def choose(tool: str, board: Board) -> str:
    """The tool that "auto" stands for: Vivado, else nextpnr-xilinx, else nextpnr-ecp5, whichever is there first."""
    if tool not in TOOLS:
        raise ConfigError("tool", tool, f"must be one of {', '.join(TOOLS)}")
    if tool != "auto":
        return tool
    return "vivado" if find("vivado") else "nextpnr-xilinx" if xilinx.available(board.part) else "ecp5"


def timing(config: DeviceConfig, block: str, board: Board, tool: str = "auto", mhz: float | None = None,
           seconds: int = SECONDS, net_ns: float | None = None) -> Timing:
    """Timing of ``block`` (instance names joined by dots, "" for the device) of the device of ``config``.

    ``mhz``: the frequency to aim at, by default the board's clock; ``net_ns``: what "unplaced" takes for a net, by default
    what its family has. Raises
    :class:`~nearflash.contract.ConfigError` for an unknown block or tool and
    :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when the tool fails or doesn't know the board's part.
    """
    chosen, target = choose(tool, board), mhz or board.clock_mhz
    if chosen == "nextpnr-xilinx" and board.part.family != "xc7":
        raise SynthesisError(f"{chosen} is used for 7-series parts here, not for {board.part.name}")
    rtlil = subtree(Device(config), block)
    if chosen == "vivado":
        return place_vivado(rtlil, board.part, target, seconds)
    if chosen == "nextpnr-xilinx":
        return xilinx.place_xilinx(rtlil, board.part, target, seconds)
    if chosen == "unplaced":
        return time_unplaced(rtlil, seconds, net_ns, board.part.family)
    return place_ecp5(rtlil, target, seconds)
