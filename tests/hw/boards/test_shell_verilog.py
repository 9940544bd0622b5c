"""The shells' Verilog as synthesis tools take it: ports, the PS7's pins, and a netlist that both flows accept."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest
from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Out
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.resources import Resources
from nearflash.contract.shell import board_config
from nearflash_hw.boards.resources import shell_units
from nearflash_hw.boards.shell import shell_verilog
from nearflash_hw.device import Device
from nearflash_hw.synthesis.estimate import Estimator
from nearflash_hw.synthesis.yosys import run_yosys, synthesise
from yosys_share import XILINX

TINY = DeviceConfig.preset("tiny")


class Hollow(Device):
    """A device's ports, and too little behind them to be worth a synthesis: every output may depend on every input."""

    def elaborate(self, platform):
        m = Module()
        ports = [(member.flow, Value.cast(value)) for _, member, value in self.signature.flatten(self)]
        state = Signal()
        m.d.sync += state.eq(state ^ Cat(value for flow, value in ports if flow != Out).xor())
        for flow, value in ports:
            if flow == Out:
                m.d.sync += value.eq(Cat(state, value))
        return m


@pytest.fixture(autouse=True, scope="module")
def hollow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearflash_hw.boards.fabric.Device", Hollow)
        yield


def configured(board):
    board = find_board(board)
    config = replace(TINY, beat_bytes=16, lookup=replace(TINY.lookup, lanes=4))
    return board_config(replace(config, clock_mhz=board.ps.clock_below(config.clock_mhz)), board), board


@cache
def verilog(board):
    return shell_verilog(*configured(board))


def module(text, name):
    return re.search(rf"^module {name}\b.*?^endmodule", text, re.MULTILINE | re.DOTALL)[0]


def test_the_ps7s_design_has_no_port_and_one_ps7():
    top = module(verilog("pynq-z2"), "nearflash_top")
    assert not re.findall(r"^  (?:input|output|inout) ", top, re.MULTILINE)
    assert '  (* DONT_TOUCH = "TRUE", keep = "TRUE" *)\n  PS7 ps7 (' in top
    assert '  (* ASYNC_REG = "TRUE" *)\n  reg [1:0] reset_stages' in top
    assert top.count("BUFG") == 1


def test_the_ps7s_pins_are_those_of_the_primitive():
    """Every input of the ports in use is connected, and nothing that isn't there."""
    cell = re.search(r"  PS7 ps7 \((.*?)\);", module(verilog("pynq-z2"), "nearflash_top"), re.DOTALL)[1]
    connected = set(re.findall(r"\.(\w+)\(", cell))
    primitive = module((XILINX / "cells_xtra.v").read_text(), "PS7")
    pins = {name: way for way, name in re.findall(r"^ +(input|output) (?:\[\d+:\d+\] )?(\w+);", primitive, re.MULTILINE)}
    ours = {name for name in pins if name.startswith(("MAXIGP0", "SAXIHP0", "SAXIHP1"))}
    assert connected <= set(pins)
    assert {name for name in ours if pins[name] == "input"} <= connected
    # Fill levels, and resets that the fabric has of its own.
    assert {re.sub(r"^MAXIGP0|^SAXIHP[01]", "", name) for name in ours - connected} == {
        "ARESETN", "RACOUNT", "RCOUNT", "WACOUNT", "WCOUNT"}
    assert connected - ours == {"FCLKCLK", "FCLKRESETN", "IRQF2P"}


def test_a_block_design_finds_the_interfaces():
    text = verilog("zcu104")
    top = module(text, "nearflash_shell")
    for port, kind in (("clk", "signal:clock:1.0 clk CLK"), ("rst", "signal:reset:1.0 rst RST"),
                       ("irq", "signal:interrupt:1.0 irq INTERRUPT")):
        assert re.search(rf'X_INTERFACE_INFO = "xilinx\.com:{kind}".*\n  (?:input|output) {port};', top)
    assert "ASSOCIATED_BUSIF s_axi:m_axi_host:m_axi_dram" in top
    assert "PS7" not in text


@pytest.fixture(scope="module")
def netlist(tmp_path_factory, hollow):
    """The PS7's design, as the open flow wants it, and what Yosys said of connections."""
    folder = tmp_path_factory.mktemp("netlist")
    (folder / "shell.v").write_text(verilog("pynq-z2"))
    run_yosys(["read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v", "read_verilog shell.v",
               "tee -o hierarchy.log hierarchy -check -top nearflash_top",
               "synth_xilinx -family xc7 -flatten -nosrl -top nearflash_top", "delete t:$scopeinfo", "setundef -zero",
               "clean", "tee -o check.log check -assert", "write_json netlist.json"],
              folder, ["netlist.json", "hierarchy.log"])
    top = json.loads((folder / "netlist.json").read_text())["modules"]["nearflash_top"]
    return top, (folder / "hierarchy.log").read_text()


def test_no_pin_has_another_width(netlist):
    assert "Resizing" not in netlist[1]


def test_the_open_flow_can_place_every_cell(netlist):
    cells = netlist[0]["cells"].values()
    allowed = re.compile(r"LUT[1-6]|INV|MUXF[78]|CARRY4|FD[RSCP]E|RAM32M|RAM64M|RAM(?:32|64|128)X1D|RAMB(?:18|36)E1|PS7|"
                         r"BUFG|VCC|GND")
    assert not {c["type"] for c in cells if not allowed.fullmatch(c["type"])}
    assert sum(c["type"] == "PS7" for c in cells) == sum(c["type"] == "BUFG" for c in cells) == 1
    assert not [name for c in cells for name, bits in c["connections"].items() if "x" in bits]
    assert not netlist[0]["ports"]


def test_a_shell_is_small():
    config, board = configured("pynq-z2")
    cost = sum((synthesise(u.rtlil, board.part.family) for u in shell_units(config, board)), Resources())
    assert 0 < cost.lut <= 1500
    assert 0 < cost.ff <= 1500
    assert (cost.bram18, cost.dsp, cost.uram) == (0, 0, 0)
    expected = Estimator(board.part.family).shell(config, board)
    assert (expected.lut, expected.ff) == (pytest.approx(cost.lut, rel=0.15), pytest.approx(cost.ff, rel=0.15))
    assert (expected.bram18, expected.dsp) == (0, 0)
    assert Estimator("xcup").shell(config, find_board("xcvu9p")) == Resources()  # no processing system, no shell
