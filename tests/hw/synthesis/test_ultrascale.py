"""Timing before placement on UltraScale+: small netlists, added up by hand from the published terms (RapidWright's)."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import BOARDS, DeviceConfig
from nearflash_hw.synthesis.netlist import subtree
from nearflash_hw.synthesis.place import timing
from nearflash_hw.synthesis.place.ultrascale import ultrascale_delays
from nearflash_hw.synthesis.place.unplaced import NET_NS, time_unplaced
from nearflash_hw.synthesis.yosys import SynthesisError
from timing_samples import Adder, Gates, Multiply

CLOCK_TO_Q, SETUP, BYPASS = 77, 25, 100  # AFF: CLK to Q, CLK to D; AX to AFF/D
LUT6 = 150  # A6LUT: A1 to O6


def total_ps(found) -> float:
    return 1e3 * sum(s.ns for s in found.path)


def test_a_register_to_a_register_through_one_look_up_table():
    found = time_unplaced(subtree(Gates(6), ""), 300, 0.5, "xcup")
    assert total_ps(found) == pytest.approx(CLOCK_TO_Q + 500 + LUT6 + BYPASS + SETUP)
    assert found.part.startswith("UltraScale+")
    assert not found.placed


def test_a_net_takes_what_the_familys_wires_do_unless_told():
    assert time_unplaced(subtree(Gates(6), ""), 300, None, "xcup").routing_ns == pytest.approx(NET_NS["xcup"])
    # Out of the CLB 43; quads of 43 + 3.5 x 10 along and 43 + 3.6 x 5 across, two each; a column of block RAM 20 x 2.4; A1's
    # pin 74.
    assert NET_NS["xcup"] == pytest.approx((43 + 2 * (43 + 35 + 43 + 18) + 48 + 74) / 1e3, abs=0.01)


def test_a_carry_chain_goes_on_by_60_ps_and_the_way_into_a_slice():
    short, long = (time_unplaced(subtree(Adder(bits), ""), 300, 0.45, "xcup") for bits in (20, 60))
    assert total_ps(long) - total_ps(short) == pytest.approx(10 * (60 + 26))
    assert long.levels == short.levels == 2


class Store(wiring.Component):
    """A memory of ``depth`` 36-bit words, its read data registered once more."""

    def __init__(self, depth: int, domain: str):
        bits = (depth - 1).bit_length()
        super().__init__({"w": In(bits), "r": In(bits), "d": In(36), "q": Out(36)})
        self.depth, self.domain = depth, domain

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=36, depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain=self.domain)
        m.d.comb += [write.en.eq(1), write.addr.eq(self.w), write.data.eq(self.d), read.addr.eq(self.r)]
        m.d.sync += self.q.eq(read.data)
        return m


def test_memories():
    block = time_unplaced(subtree(Store(2048, "sync"), ""), 300, 0.45, "xcup")
    assert any(name.startswith("ramb") for name in block.used)
    assert total_ps(block) >= 1003 + 450 + BYPASS + SETUP  # CLKARDCLK to DOUTADOUT[0], DOA_REG 0
    spread = time_unplaced(subtree(Store(32, "comb"), ""), 300, 0.45, "xcup")
    assert any(name.startswith("ram32") for name in spread.used)
    assert total_ps(spread) >= CLOCK_TO_Q + 450 + LUT6 + BYPASS + SETUP


def test_a_multiplier_that_yosys_infers_has_no_registers():
    found = time_unplaced(subtree(Multiply(), ""), 300, 0.45, "xcup")
    assert found.used["dsp48e2"] == 1
    assert total_ps(found) >= CLOCK_TO_Q + 450 + 1510 + 450 + SETUP  # A to P


def slice_(**registers):
    bits = {"A": 30, "B": 18, "PCIN": 48, "CLK": 1, "CEP": 1, "P": 48, "PCOUT": 48}
    return ultrascale_delays({
        "type": "DSP48E2", "parameters": {k: f"{v:032b}" for k, v in registers.items()},
        "port_directions": {p: "output" if p in ("P", "PCOUT") else "input" for p in bits},
        "connections": {p: list(range(n)) for p, n in bits.items()}})


def test_a_slices_registers_end_paths():
    full = slice_(AREG=1, BREG=1, MREG=1, PREG=1)
    assert not full.through
    assert full.from_clock["P", 0] == full.from_clock["PCOUT", 47] == 0.28
    assert full.setup["A", 29] == full.setup["B", 0] == full.setup["CEP", 0] == 0.30
    assert full.setup["PCIN", 5] == 0.55
    assert ("CLK", 0) not in full.setup
    bare = slice_()
    assert bare.through["P", 3]["A", 7] == bare.through["P", 0]["B", 17] == 1.56
    assert ("A", 0) not in bare.setup


def test_a_cell_without_delays_is_refused():
    cell = {"type": "GTYE4", "parameters": {}, "port_directions": {"O": "output"}, "connections": {"O": [2]}}
    with pytest.raises(SynthesisError, match="GTYE4"):
        ultrascale_delays(cell)


def test_the_board_chooses_the_cells():
    config = DeviceConfig.preset("tiny")
    parts = [timing(config, "lookup.merge", BOARDS[b], "unplaced").part for b in ("zcu104", "pynq-z2")]
    assert [p.split()[0] for p in parts] == ["UltraScale+", "Artix-7"]
    with pytest.raises(SynthesisError, match="7-series"):
        timing(config, "lookup.merge", BOARDS["zcu104"], "nextpnr-xilinx")
