"""What a shell costs."""

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources

from ..synthesis.netlist import Unit, units
from ..synthesis.yosys import synthesise
from .fabric import Fabric

__all__ = ["SHELL", "shell_resources", "shell_units"]

SHELL = "shell"


def shell_units(config: DeviceConfig, board: Board) -> list[Unit]:
    """The blocks that ``board``'s shell puts around the device of ``config``, under "shell". Raises as
    :class:`~.fabric.Fabric` does."""
    return [Unit(f"{SHELL}.{u.path}" if u.path else SHELL, u.rtlil) for u in units(Fabric(config, board))
            if u.path.split(".")[0] != "device"]


def shell_resources(config: DeviceConfig, board: Board) -> Resources:
    """Of all of them, synthesised for the board's part, a block at a time. Raises as
    :func:`~nearflash_hw.synthesis.yosys.synthesise` does too."""
    return sum((synthesise(u.rtlil, board.part.family) for u in shell_units(config, board)), Resources())
