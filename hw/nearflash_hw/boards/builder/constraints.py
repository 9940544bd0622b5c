"""Constraints of a shell: its clock, and what marks the bitstream."""

from __future__ import annotations

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.processing import ProcessingSystem

__all__ = ["open_flow_pins", "vivado_constraints"]


def vivado_constraints(config: DeviceConfig, board: Board, ps: ProcessingSystem) -> str:
    """XDC for Vivado. No port reaches a pin: the processing system's own pins are fixed. Its clock is constrained here where
    the script instantiates no vendor's IP that brings the constraint along. The design's number becomes USERID, so that
    equal bits mean equal designs (PYNQ keeps what it knows of a design by the bitstream's hash)."""
    lines = [f"# {config.name} on {board.name}, {config.clock_mhz:g} MHz"]
    if ps.axi == 3:
        lines.append(f"create_clock -name fclk0 -period {1e3 / config.clock_mhz:.3f} [get_pins -of_objects [get_cells "
                     "-hierarchical -filter {REF_NAME == PS7}] -filter {REF_PIN_NAME == FCLKCLK[0]}]")
    lines.append(f"set_property BITSTREAM.CONFIG.USERID {config.design_id:#010x} [current_design]")
    return "\n".join([*lines, ""])


def open_flow_pins() -> str:
    """XDC for nextpnr-xilinx, which wants PACKAGE_PIN and IOSTANDARD of every port: there is none."""
    return "# No port of the shell reaches a pin: the processing system's own pins are fixed.\n"
