"""Verilog of a board's shell."""

from __future__ import annotations

import re

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board

from ..verilog import to_verilog
from .fabric import Fabric
from .ps7 import INSTANCE, RESET_STAGES, Ps7Top

__all__ = ["FABRIC", "TOP", "fabric_verilog", "shell_verilog"]

TOP = "nearflash_top"  #: module of a whole design
FABRIC = "nearflash_shell"  #: module of a fabric

#: What Vivado infers interfaces from where names don't say enough (UG994, "Inferring Control Signals in a Module").
INTERFACES = {
    "clk": {"X_INTERFACE_INFO": "xilinx.com:signal:clock:1.0 clk CLK",
            "X_INTERFACE_PARAMETER": "ASSOCIATED_BUSIF s_axi:m_axi_host:m_axi_dram, ASSOCIATED_RESET rst"},
    "rst": {"X_INTERFACE_INFO": "xilinx.com:signal:reset:1.0 rst RST", "X_INTERFACE_PARAMETER": "POLARITY ACTIVE_HIGH"},
    "irq": {"X_INTERFACE_INFO": "xilinx.com:signal:interrupt:1.0 irq INTERRUPT",
            "X_INTERFACE_PARAMETER": "SENSITIVITY LEVEL_HIGH"},
}


def shell_verilog(config: DeviceConfig, board: Board) -> str:
    """What a tool makes ``board``'s bitstream from. Zynq-7000: module ``nearflash_top``, which is the whole design.
    UltraScale+: module ``nearflash_shell``, a :class:`~.fabric.Fabric` with ``clk`` and ``rst`` (high: reset), for a block
    design beside the vendor's IP of the processing system.

    The same text for equal arguments. Raises :class:`~nearflash.contract.ConfigError` as :class:`~.fabric.Fabric` does.
    """
    if board.ps is not None and board.ps.axi == 3:
        text = to_verilog(Ps7Top(config, board), TOP)
        # Nothing else in the design has a side effect.
        text = _annotated(text, rf"PS7 {INSTANCE} \(", {"DONT_TOUCH": "TRUE", "keep": "TRUE"})
        return _annotated(text, rf"reg \[1:0\] {RESET_STAGES}\b", {"ASYNC_REG": "TRUE"})
    text = to_verilog(Fabric(config, board), FABRIC)
    start = re.search(rf"^module {FABRIC}\b", text, re.MULTILINE)
    assert start is not None
    head, top = text[:start.start()], text[start.start():]
    for port, attributes in INTERFACES.items():
        top = _annotated(top, rf"(?:input|output) {port};", attributes, first=True)
    return head + top


def fabric_verilog(config: DeviceConfig, board: Board, *, model: bool = False, gated: bool = True) -> str:
    """Module ``nearflash_shell``: the :class:`~.fabric.Fabric` of ``board``, whatever its processing system, for simulation;
    ``model`` and ``gated`` as :func:`~nearflash_hw.verilog.to_verilog` has them. Raises as :class:`~.fabric.Fabric` does."""
    return to_verilog(Fabric(config, board), FABRIC, model=model, gated=gated)


def _annotated(text: str, line: str, attributes: dict[str, str], first: bool = False) -> str:
    """``text`` with Verilog attributes before the line that begins with ``line``: the only one, or the ``first``."""
    words = ", ".join(f'{name} = "{value}"' for name, value in attributes.items())
    text, n = re.subn(rf"^  (?={line})", f"  (* {words} *)\n  ", text, count=1 if first else 0, flags=re.MULTILINE)
    if n != 1:
        raise ValueError(f"{n} lines begin with {line}: must be one")
    return text
