"""Boards and their FPGAs: what a plan may use and a report divides by.

Counts are the datasheets' (DS180, DS190, DS890, DS891, DS987): ``lut`` 6-input look-up tables, ``ff`` flip-flops, ``bram36``
36 Kb block RAMs (each may be two of 18 Kb), ``uram`` 288 Kb UltraRAMs, ``dsp`` DSP48 slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ConfigError
from .processing import PS7, PS8, ProcessingSystem

if TYPE_CHECKING:
    from .config import DeviceConfig

__all__ = ["BOARDS", "PARTS", "PYNQ_BOARDS", "Board", "Part", "find_board"]

MIB = 1 << 20


@dataclass(frozen=True)
class Part:
    """An FPGA. ``family``: "xc7" (7 series: LUT6, RAMB36E1, DSP48E1) or "xcup" (UltraScale+: RAMB36E2, URAM288,
    DSP48E2), as Yosys calls them. ``order_code``: what Vivado calls the one on the board."""

    name: str
    family: str
    lut: int
    ff: int
    bram36: int
    dsp: int
    order_code: str
    uram: int = 0


@dataclass(frozen=True)
class Board:
    """A board, or a bare part. ``clock_mhz``: what a design without other wishes should run at; ``dram_bytes_per_cycle``:
    what its memory controller sustains at that clock (peak x 0.7). ``beats``: bytes of a data bus to its memory, narrowest
    first, as wide as a port of its memory controller and, through a width converter, wider. ``dram_bytes``: the memory that
    holds the device's flash contents, map and streamed weights. ``ps``: the processing system that a shell is generated for,
    where there is one; ``pynq_name``: what PYNQ calls the board."""

    name: str
    part: Part
    clock_mhz: float
    dram_bytes_per_cycle: float
    dram_bytes: int
    beats: tuple[int, ...] = (16,)
    ps: ProcessingSystem | None = None
    pynq_name: str = ""

    def memory(self) -> list[tuple[int, int]]:
        """(address, bytes) of the parts of its memory, as the processing system sees them."""
        out, left = [], self.dram_bytes
        for base, most in self.ps.ddr if self.ps else ():
            if left:
                out.append((base, min(left, most)))
                left -= out[-1][1]
        return out

    def check_memory(self, config: DeviceConfig) -> None:
        """Raises :class:`ConfigError` for a device whose DRAM layout does not fit the board's memory."""
        end, f = config.layout.end, config.flash
        if end > self.dram_bytes:
            raise ConfigError("flash", f"{f.channels} x {f.dies} dies of {f.blocks} x {f.pages} pages of {f.page_bytes} B",
                              f"needs {end / MIB:,.0f} MiB of DRAM with its map and weights: {self.name} has "
                              f"{self.dram_bytes / MIB:,.0f} MiB")


PARTS = {p.name: p for p in (
    Part("XC7Z020", "xc7", 53_200, 106_400, 140, 220, "xc7z020clg400-1"),
    Part("XC7A200T", "xc7", 134_600, 269_200, 365, 740, "xc7a200tfbg676-2"),
    Part("XCZU7EV", "xcup", 230_400, 460_800, 312, 1_728, "xczu7ev-ffvc1156-2-e", 96),
    Part("XCK26", "xcup", 117_120, 234_240, 144, 1_248, "xck26-sfvc784-2LV-c", 64),
    Part("XCVU9P", "xcup", 1_182_240, 2_364_480, 2_160, 6_840, "xcvu9p-flga2104-2L-e", 960),
)}

# Memory: PYNQ-Z1 and Z2 512 MiB of DDR3-1050 x 16 (peak 2.1 GB/s), ZCU104 2 GiB at its PS and KV260 4 GiB of DDR4-2400 x 64
# (19.2 GB/s); a module of 4 GiB of DDR3-1600 x 64 (12.8 GB/s) beside an XC7A200T and one of 16 GiB of DDR4-2400 x 64 beside
# an XCVU9P are assumed.
BOARDS = {b.name: b for b in (
    Board("pynq-z1", PARTS["XC7Z020"], 100.0, 2.1e9 * 0.7 / 100e6, 512 * MIB, (8, 16), PS7, "Pynq-Z1"),
    Board("pynq-z2", PARTS["XC7Z020"], 100.0, 2.1e9 * 0.7 / 100e6, 512 * MIB, (8, 16), PS7, "Pynq-Z2"),
    Board("zcu104", PARTS["XCZU7EV"], 200.0, 19.2e9 * 0.7 / 200e6, 2048 * MIB, ps=PS8, pynq_name="ZCU104"),
    Board("kv260", PARTS["XCK26"], 200.0, 19.2e9 * 0.7 / 200e6, 4096 * MIB, ps=PS8, pynq_name="KV260"),
    Board("xc7a200t", PARTS["XC7A200T"], 125.0, 12.8e9 * 0.7 / 125e6, 4096 * MIB),
    Board("xcvu9p", PARTS["XCVU9P"], 200.0, 19.2e9 * 0.7 / 200e6, 16384 * MIB),
)}


#: Those with a processing system: what shells are generated for.
PYNQ_BOARDS = tuple(b for b in BOARDS.values() if b.ps)


def find_board(name: str) -> Board:
    """The board, or the first board of the part, of that name in any case. Raises :class:`ConfigError` for others."""
    key = name.lower()
    for b in BOARDS.values():
        if key in (b.name, b.part.name.lower()):
            return b
    raise ConfigError("board", name, f"must be one of {', '.join(BOARDS)} or a part: {', '.join(PARTS)}")
