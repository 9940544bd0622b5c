"""What a shell costs."""

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources

from ..synthesis.netlist import units
from ..synthesis.yosys import synthesise
from .fabric import Fabric

__all__ = ["shell_resources"]


def shell_resources(config: DeviceConfig, board: Board) -> Resources:
    """Of everything that ``board``'s shell puts around the device of ``config``, synthesised for its part, a block at a
    time.

    Raises as :class:`~.fabric.Fabric` and :func:`~nearflash_hw.synthesis.yosys.synthesise` do."""
    fabric = Fabric(config, board)
    return sum((synthesise(u.rtlil, board.part.family) for u in units(fabric) if u.path.split(".")[0] != "device"),
               Resources())
