"""A PYNQ board that isn't there: stock PYNQ code, unchanged, against the Verilated shell.

``NEARFLASH_BOARD=sim:pynq-z2 python script.py`` runs any script, notebook kernel or module; see docs/virtual_board.md. The
way of one register access: the user's ``ol.nearflash_0.read(0x100)`` -> ``pynq.MMIO`` -> :mod:`.pynq_device` ->
:mod:`.board`
-> the AXI target of the shell's Verilog.
"""

from .board import VirtualBoard
from .errors import BoardError

__all__ = ["BoardError", "VirtualBoard"]
