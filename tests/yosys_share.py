"""Yosys' files for Xilinx parts, found without importing `pyosys`.

Its import makes all libraries that the process loads later share their symbols (RTLD_GLOBAL): GDAL then calls Pillow's
libtiff, and its files come out with other bytes. Yosys runs in processes of its own, in tests too.
"""

from importlib.util import find_spec
from pathlib import Path

XILINX = Path(find_spec("pyosys").origin).parent / "share/xilinx"
