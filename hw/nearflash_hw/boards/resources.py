"""What a shell costs."""

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board

from ..synthesis.netlist import Unit, units
from .fabric import Fabric

__all__ = ["SHELL", "shell_units"]

SHELL = "shell"


def shell_units(config: DeviceConfig, board: Board) -> list[Unit]:
    """The blocks that ``board``'s shell puts around the device of ``config``, under "shell". Raises as
    :class:`~.fabric.Fabric` does."""
    return [Unit(f"{SHELL}.{u.path}" if u.path else SHELL, u.rtlil) for u in units(Fabric(config, board))
            if u.path.split(".")[0] != "device"]
