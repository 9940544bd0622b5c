"""The cells of Xilinx families as Yosys has them, no more of them than a unit needs.

``synth_xilinx`` reads all that it knows: 97 cells with models and 328 of which it knows the ports alone. The latter are
most of a small unit's time, once to read and once more when look-up tables are mapped.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["PORTS_FILE", "READ_LIBRARIES", "ports_alone"]

PORTS_FILE = "ports.v"  # of :func:`ports_alone`
#: Passes in place of synth_xilinx's own before its label ``prepare``, without the check of the design's hierarchy.
READ_LIBRARIES = ("read_verilog -lib -specify +/xilinx/cells_sim.v", f"read_verilog -lib {PORTS_FILE}")
#: What synth_xilinx maps to beside the cells with models.
MAPPED = {"xc7": (), "xcup": ("DSP48E2", "RAMB18E2", "RAMB36E2", "URAM288")}
_MODULE = re.compile(r"^module \\(\S+)", re.MULTILINE)
_CELL = re.compile(r"^ *cell \\(\S+)", re.MULTILINE)
_VERILOG = re.compile(r"^module (\w+).*?^endmodule$", re.MULTILINE | re.DOTALL)


def ports_alone(rtlil: str, family: str) -> str:
    """Verilog of the cells without a model that ``family`` maps to or that ``rtlil`` has. A cell that Yosys doesn't know is
    left out: it says so."""
    known = _cells_xtra()
    wanted = [*MAPPED[family], *sorted(set(_CELL.findall(rtlil)) - set(_MODULE.findall(rtlil)) - set(MAPPED[family]))]
    return "".join(known[name] for name in wanted if name in known)


@lru_cache
def _cells_xtra() -> dict[str, str]:
    # Not imported: its import makes libraries that the process loads later share their symbols
    found = importlib.util.find_spec("pyosys")
    if found is None or found.origin is None:
        return {}  # no Yosys: whoever runs it says what to install
    text = (Path(found.origin).parent / "share/xilinx/cells_xtra.v").read_text()
    return {m[1]: m[0] + "\n" for m in _VERILOG.finditer(text)}
