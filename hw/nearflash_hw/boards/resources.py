"""What a shell costs."""

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board

from ..synthesis.netlist import Unit, subtree, units
from .fabric import Fabric
from .memory_path import MemoryPath
from .register_path import RegisterPath

__all__ = ["SHELL", "shell_parts", "shell_units"]

SHELL = "shell"


def shell_units(config: DeviceConfig, board: Board) -> list[Unit]:
    """The blocks that ``board``'s shell puts around the device of ``config``, under "shell". Raises as
    :class:`~.fabric.Fabric` does."""
    return [Unit(f"{SHELL}.{u.path}" if u.path else SHELL, u.rtlil) for u in units(Fabric(config, board))
            if u.path.split(".")[0] != "device"]


def shell_parts(config: DeviceConfig, board: Board) -> list[str]:
    """RTLIL of all that ``board``'s shell is made of, its memory path twice. Nothing of the device is elaborated.

    ``config``: with the bus that the board takes (:func:`~nearflash.contract.shell.board_config`)."""
    assert board.ps is not None
    path = subtree(MemoryPath(config, board.ps), "")
    return [subtree(RegisterPath(config, board.ps), ""), path, path]
