"""Delays of UltraScale+ cells, which Yosys' library does not have.

Logic, block RAM and UltraRAM: the worst pin of each kind in the timing model that RapidWright publishes (Maidee, Neely,
Kaviani, Lavin, "An Open-source Lightweight Timing Model for RapidWright", FPT 2019; its terms, version 0.5). DSP slices, of
which that model has none: the worst pin of the delays of routed DSP48E2 that RapidWright's router is tested with. Where
neither has a pin (clock enables, MUXF8, a slice's C and OPMODE), the longest of its like stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..yosys import SynthesisError
from .delays import CellDelays

__all__ = ["NET_NS", "ultrascale_delays"]

#: A net over 8 CLBs either way and one column of block RAM by the same model's wires: out of its CLB 43 ps, two quads along
#: and two across 2 x (78 + 61), the column 48, the sink's pin 74.
NET_NS = 0.45

LUT = (0.150, 0.125, 0.100, 0.090, 0.050, 0.035)  # inputs of a LUT6, slowest first; a smaller one has the fastest
FLIPFLOP = {"clock": 0.077, "setup": 0.125}  # from outside the slice; from the look-up table beside it 50 ps less
LUTRAM = {"clock": 0.312, "address": 0.117, "enable": 0.180, "data": 0.081}
BRAM = {"clock": 1.050, "registered": 0.230, "setup": 0.445}
URAM = {"clock": 1.292, "registered": 0.767, "setup": 0.571}
SLICE = {"clock": 0.28, "setup": 0.30, "through": 1.56, "cascade": 0.55}  # DSP48E2

# CARRY8, by halves, as Yosys maps to CARRY4: from each input to O0-O3 and to CO0-CO3, with the way in and out of the slice's
# wires (15 ps behind S, 30 ps behind O, 26 ps at a slice's own carry input).
_IN, _OUT, _CARRY = 0.015, 0.030, 0.026
_O = {"S": ((65, 96, 134, 139), (None, 58, 131, 138), (None, None, 58, 86), (None, None, None, 61)),
      "DI": ((None, 84, 115, 123), (None, None, 102, 107), (None, None, None, 94), (None, None, None, None)),
      "CI": ((56, 76, 67, 82),), "CYINIT": ((110, 134, 132, 139),)}
_CO = {"S": ((71, 109, 115, 186), (None, 105, 113, 184), (None, None, 63, 148), (None, None, None, 133)),
       "DI": ((59, 87, 98, 182), (None, 74, 82, 144), (None, None, 69, 134), (None, None, None, 131)),
       "CI": ((52, 42, 57, 60),), "CYINIT": ((109, 105, 114, 177),)}


class _Cell:
    """A cell of Yosys' JSON: its pins, and delays to put together."""

    def __init__(self, cell: dict[str, Any]):
        self.type: str = cell["type"]
        self.parameters: dict[str, str] = cell["parameters"]
        pins = [(p, i, cell["port_directions"][p] == "output") for p, bits in cell["connections"].items()
                for i in range(len(bits))]
        self.inputs = [(p, i) for p, i, out in pins if not out]
        self.outputs = [(p, i) for p, i, out in pins if out]
        self.delays = CellDelays()

    def has(self, *registers: str) -> bool:
        """Whether one of ``registers`` is used: a parameter of "TRUE", or of bits that are not all 0."""
        return any(self.parameters.get(r, "0").strip("0") not in ("", "FALSE") for r in registers)

    def through(self, ns: float, inputs: list[tuple[str, int]] | None = None) -> None:
        for o in self.outputs:
            for i in self.inputs if inputs is None else inputs:
                self.delays.through.setdefault(o, {})[i] = ns

    def clocked(self, ns: float) -> None:
        self.delays.from_clock.update(dict.fromkeys(self.outputs, ns))

    def waits(self, ns: float, inputs: list[tuple[str, int]]) -> None:
        self.delays.setup.update(dict.fromkeys(inputs, ns))


def _lut(c: _Cell) -> None:
    for k, pin in enumerate(sorted(c.inputs)):
        c.through(LUT[len(LUT) - len(c.inputs) + k], [pin])


def _mux(c: _Cell) -> None:
    c.through(0.070 + 0.032 + 0.025)  # with the wires before and behind it
    c.through(0.077 + 0.032, [("S", 0)])


def _carry(c: _Cell) -> None:
    for out, table, leave in (("O", _O, _OUT), ("CO", _CO, 0.0)):
        for name, rows in table.items():
            enter = {"S": _IN, "CI": _CARRY}.get(name, 0.0)
            for i, row in enumerate(rows):
                for k, ps in enumerate(row):
                    if ps is not None:
                        c.delays.through.setdefault((out, k), {})[(name, i)] = ps / 1e3 + enter + leave


def _flipflop(c: _Cell) -> None:
    c.clocked(FLIPFLOP["clock"])
    c.waits(FLIPFLOP["setup"], [i for i in c.inputs if i[0] in ("D", "CE", "R", "S", "CLR", "PRE")])


def _lutram(c: _Cell) -> None:
    clocks = ("WCLK", "CLK")
    c.clocked(LUTRAM["clock"])
    address = [i for i in c.inputs if i[0].startswith(("ADDR", "DPRA", "A"))]
    c.through(LUT[0] + 0.070 + 0.032, address)  # deep ones end in a multiplexer
    c.waits(LUTRAM["data"], [i for i in c.inputs if i[0] not in clocks])
    if not c.type.startswith("SRL"):
        c.waits(LUTRAM["address"], address)
    c.waits(LUTRAM["enable"], [i for i in c.inputs if i[0] in ("WE", "CE")])


def _ram(times: dict[str, float], registers: tuple[str, ...], clocks: tuple[str, ...]) -> Callable[[_Cell], None]:
    def delays(c: _Cell) -> None:
        c.clocked(times["registered" if c.has(*registers) else "clock"])
        c.waits(times["setup"], [i for i in c.inputs if i[0] not in clocks])

    return delays


def _dsp(c: _Cell) -> None:
    """A register in front of an input ends a path there; without the one behind the adder what comes in goes through."""
    c.clocked(SLICE["clock"] if c.has("PREG") else SLICE["clock"] + SLICE["through"])
    for pin in c.inputs:
        name = pin[0]
        if name == "CLK":
            continue
        if name.startswith(("RST", "CE")) or c.has(f"{name}REG"):
            c.waits(SLICE["setup"], [pin])
        else:
            ns = SLICE["cascade" if name == "PCIN" else "through"]
            if c.has("PREG") or (name in ("A", "B", "D") and c.has("MREG")):
                c.waits(ns, [pin])
            else:
                c.through(ns, [pin])


_KINDS: dict[str, Callable[[_Cell], None]] = {
    "LUT": _lut, "INV": _lut, "MUXF": _mux, "CARRY4": _carry, "FD": _flipflop, "RAM32": _lutram, "RAM64": _lutram,
    "RAM128": _lutram, "RAM256": _lutram, "RAM512": _lutram, "SRL": _lutram, "DSP48E2": _dsp,
    "RAMB": _ram(BRAM, ("DOA_REG", "DOB_REG"), ("CLKARDCLK", "CLKBWRCLK")),
    "URAM288": _ram(URAM, ("OREG_A", "OREG_B"), ("CLK",)),
}


def ultrascale_delays(cell: dict[str, Any]) -> CellDelays:
    """Of a cell of Yosys' JSON. Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` for a kind not known here."""
    for prefix, delays in _KINDS.items():
        if cell["type"].startswith(prefix):
            c = _Cell(cell)
            delays(c)
            return c.delays
    if not any(d == "output" for d in cell["port_directions"].values()):
        return CellDelays()
    raise SynthesisError(f"no delays of {cell['type']} are known for UltraScale+")
