"""Timing before placement: netlists small enough to add up by hand, with delays read from the cell library's text."""

import re

import pytest
from nearflash_hw.synthesis.netlist import subtree
from nearflash_hw.synthesis.place.delays import CellDelays
from nearflash_hw.synthesis.place.unplaced import _Netlist, time_unplaced
from nearflash_hw.synthesis.yosys import SynthesisError
from timing_samples import Adder, Gates, Multiply
from yosys_share import XILINX

LIBRARY = (XILINX / "cells_sim.v").read_text()


def library_ns(cell: str, arc: str) -> float:
    """The delay that the library's text states for ``arc`` of ``cell``."""
    body = re.search(rf"^module {cell} ?\(.*?^endmodule", LIBRARY, re.MULTILINE | re.DOTALL)[0]
    return int(re.search(rf"{arc}\D*?(\d+)\)?;", body)[1]) / 1e3


CLOCK_TO_Q = library_ns("FDRE", re.escape("(posedge C => (Q : 1'b0)) ="))
CE_SETUP = library_ns("FDRE", re.escape("$setup(CE, posedge C &&& !IS_C_INVERTED,"))


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


def test_a_carry_chain_is_one_level_and_its_cells_add_up():
    short, long = (time_unplaced(subtree(Adder(bits), ""), 300, 0.7) for bits in (20, 60))
    more = sum(s.ns for s in long.path) - sum(s.ns for s in short.path)
    assert more == pytest.approx(10 * library_ns("CARRY4", r"\(CI\s+=> CO\[3\]\) ="))
    assert long.levels == short.levels == 2
    assert short.routing_ns == pytest.approx(0.7)


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
