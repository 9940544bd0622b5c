"""Timing before placement: netlists small enough to add up by hand, with delays read from the cell library's text."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import BOARDS, DeviceConfig
from nearflash_hw.synthesis.netlist import subtree
from nearflash_hw.synthesis.place import timing
from nearflash_hw.synthesis.place.delays import CellDelays
from nearflash_hw.synthesis.place.unplaced import _Netlist, time_unplaced
from nearflash_hw.synthesis.yosys import SynthesisError

# Found without importing it: Yosys runs in processes of its own, in tests too.
LIBRARY = (Path(find_spec("pyosys").origin).parent / "share/xilinx/cells_sim.v").read_text()


def library_ns(cell: str, arc: str) -> float:
    """The delay that the library's text states for ``arc`` of ``cell``."""
    body = re.search(rf"^module {cell} ?\(.*?^endmodule", LIBRARY, re.MULTILINE | re.DOTALL)[0]
    return int(re.search(rf"{arc}\D*?(\d+)\)?;", body)[1]) / 1e3


CLOCK_TO_Q = library_ns("FDRE", re.escape("(posedge C => (Q : 1'b0)) ="))
CE_SETUP = library_ns("FDRE", re.escape("$setup(CE, posedge C &&& !IS_C_INVERTED,"))


class Gates(wiring.Component):
    """``inputs`` registers, their parity in a register, which may be one of a vector of ``sinks``."""

    def __init__(self, inputs: int, sinks: int = 1):
        self.inputs, self.sinks = inputs, sinks
        super().__init__({"i": In(inputs), "o": Out(sinks), "held": Out(8)})

    def elaborate(self, platform):
        m = Module()
        i = Signal(self.inputs)
        m.d.sync += i.eq(self.i)
        if self.sinks == 1:
            m.d.sync += self.o.eq(i.xor())
        else:  # the parity as an enable: a net of its own to every register
            with m.If(i.xor()):
                m.d.sync += self.o.eq(self.o + 1)
        return m


def test_a_register_to_a_register_through_one_look_up_table():
    found = time_unplaced(subtree(Gates(6), ""), 300, 0.5)
    lut = max(library_ns("LUT6", rf"\(I{k} => O\) =") for k in range(6))
    assert sum(s.ns for s in found.path) == pytest.approx(CLOCK_TO_Q + 0.5 + lut)  # the table's own register is beside it
    assert (found.levels, found.logic_ns, found.routing_ns) == (1, pytest.approx(CLOCK_TO_Q + lut), pytest.approx(0.5))
    assert [s.kind for s in found.path] == ["clk-to-q", "routing", "logic", "routing", "setup"]
    assert not found.placed
    assert not found.stand_in


def test_every_net_counts_and_so_does_setup():
    slow, fast = (time_unplaced(subtree(Gates(6, 8), ""), 300, ns) for ns in (2.0, 1.0))
    total, slow_total = (sum(s.ns for s in f.path) for f in (fast, slow))
    assert [s.kind for s in fast.path] == ["clk-to-q", "routing", "logic", "routing", "setup"]
    assert fast.path[-1].ns == pytest.approx(CE_SETUP)
    assert slow_total - total == pytest.approx(2.0)  # into the table, and out of it to the enables
    assert fast.fmax_mhz == pytest.approx(1e3 / total)
    assert fast.registers[0].arrival_ns == pytest.approx(total)


class Adder(wiring.Component):
    def __init__(self, bits: int):
        super().__init__({"a": In(bits), "b": In(bits), "s": Out(bits)})
        self.bits = bits

    def elaborate(self, platform):
        m = Module()
        a, b = Signal(self.bits), Signal(self.bits)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.s.eq(a + b)]
        return m


def test_a_carry_chain_is_one_level_and_its_cells_add_up():
    short, long = (time_unplaced(subtree(Adder(bits), ""), 300, 0.7) for bits in (20, 60))
    more = sum(s.ns for s in long.path) - sum(s.ns for s in short.path)
    assert more == pytest.approx(10 * library_ns("CARRY4", r"\(CI\s+=> CO\[3\]\) ="))
    assert long.levels == short.levels == 2
    assert short.routing_ns == pytest.approx(0.7)


class Multiply(wiring.Component):
    def __init__(self):
        super().__init__({"a": In(signed(16)), "b": In(signed(16)), "p": Out(signed(32))})

    def elaborate(self, platform):
        m = Module()
        a, b, x = Signal(signed(16)), Signal(signed(16)), Signal(signed(32))
        m.d.sync += [a.eq(self.a), b.eq(self.b), x.eq(a * b), self.p.eq(x)]
        return m


def test_a_slice_with_registers_has_no_path_through_it():
    found = time_unplaced(subtree(Multiply(), ""), 300, 0.7)
    assert found.used["dsp48e1"] == 1
    assert max(r.arrival_ns for r in found.registers) < 1.7  # its multiplier alone takes 2.4


def test_a_loop_of_logic_is_refused():
    lut = {"type": "LUT1", "parameters": {}, "port_directions": {"I0": "input", "O": "output"}}
    module = {"netnames": {"x": {"bits": [2]}, "y": {"bits": [3]}},
              "cells": {"a": {**lut, "connections": {"I0": [2], "O": [3]}},
                        "b": {**lut, "connections": {"I0": [3], "O": [2]}}}}
    with pytest.raises(SynthesisError, match="loop"):
        _Netlist(module, {("LUT1", ()): CellDelays(through={("O", 0): {("I0", 0): 0.1}})}, 0.7)


def test_parts_of_other_families_are_refused():
    with pytest.raises(SynthesisError, match="7-series"):
        timing(DeviceConfig.preset("tiny"), "lookup.merge", BOARDS["zcu104"], "unplaced")
