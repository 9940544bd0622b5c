"""Vivado's scripts run to their end in a Tcl interpreter, with stubs of its commands (:mod:`vivado_stub`)."""

import re
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.shell import BLOCK_BYTES, blocks, board_config
from nearflash_hw.boards.builder.constraints import vivado_constraints
from nearflash_hw.boards.builder.vivado import SCRIPT, vivado_script

tkinter = pytest.importorskip("tkinter", reason="no Tcl here: Vivado's scripts are NOT checked (install Python's tkinter)")
from vivado_stub import Refused, Vivado  # noqa: E402

TOP = "module nearflash_top;\n  PS7 ps();\nendmodule\n"
PORTS = """module nearflash_shell(clk, rst, irq, s_axi_awaddr);
  input clk;
  input rst;
  output irq;
  input [39:0] s_axi_awaddr;
  input [31:0] s_axi_wdata;
  output [39:0] m_axi_host_awaddr;
  output [63:0] m_axi_host_wdata;
  output [39:0] m_axi_dram_awaddr;
  output [63:0] m_axi_dram_wdata;
endmodule
"""


def written(folder, name, verilog):
    """Script, constraints and ``verilog`` for the preset `tiny` in ``folder``; (script, configuration)."""
    board = find_board(name)
    config = board_config(replace(DeviceConfig.preset("tiny"), clock_mhz=board.ps.clock_below(board.clock_mhz)), board)
    (folder / "tiny.v").write_text(verilog)
    (folder / "tiny.xdc").write_text(vivado_constraints(config, board, board.ps))
    (folder / SCRIPT).write_text(vivado_script(config, board, board.ps, "tiny"))
    return folder / SCRIPT, config


def test_zynq_7000(tmp_path):
    script, config = written(tmp_path, "pynq-z2", TOP)
    v = Vivado()
    v.source(script)
    assert v.wrote == [str(tmp_path / "run" / "vivado" / "tiny.bit")]
    assert v.part == "xc7z020clg400-1"
    assert (tmp_path / "run" / "vivado" / "timing.rpt").exists()
    assert any("-period 10.000 " in c for c in v.constraints)
    assert any(f"{config.design_id:#010x}" in c for c in v.constraints)
    assert [s for s in v.said if s.startswith("nearflash: ")][-1] == "nearflash: done"


@pytest.mark.parametrize(("name", "part"), [("zcu104", "xczu7ev-ffvc1156-2-e"), ("kv260", "xck26-sfvc784-2LV-c")])
def test_ultrascale(tmp_path, name, part):
    script, config = written(tmp_path, name, PORTS)
    v = Vivado()
    v.source(script)
    assert v.wrote == [str(tmp_path / "run" / "vivado" / "tiny.bit")]
    assert v.part == part
    assert float(v.properties["PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"]) == pytest.approx(config.clock_mhz)
    ((offset, size),) = v.segments.values()
    assert offset == find_board(name).ps.window
    assert size >= len(blocks(config)) * BLOCK_BYTES
    assert ("ps/pl_clk0", "nearflash_shell_0/clk") in v.nets
    assert set(v.intf_nets) == {("ps/M_AXI_HPM0_FPD", "nearflash_shell_0/s_axi"),
                                ("nearflash_shell_0/m_axi_host", "ps/S_AXI_HP0_FPD"),
                                ("nearflash_shell_0/m_axi_dram", "ps/S_AXI_HP1_FPD")}


@pytest.mark.parametrize(("name", "verilog"), [("pynq-z2", TOP), ("zcu104", PORTS)])
@pytest.mark.parametrize(("slack", "says"), [(("-0.001", "0.1"), "worst setup slack is -0.001 ns"),
                                             (("0.5", "-0.2"), "worst hold slack is -0.2 ns")])
def test_no_bitstream_where_timing_is_not_met(tmp_path, name, verilog, slack, says):
    script, _ = written(tmp_path, name, verilog)
    v = Vivado(slack)
    with pytest.raises(tkinter.TclError, match=f"timing is not met: {re.escape(says)}"):
        v.source(script)
    assert not v.wrote


def test_a_run_that_ends_early(tmp_path):
    script, _ = written(tmp_path, "kv260", PORTS)
    v = Vivado(progress="40%")
    with pytest.raises(tkinter.TclError, match="synth_1 ended early: place_design ERROR"):
        v.source(script)
    assert not v.wrote


@pytest.mark.parametrize(("name", "verilog", "old", "new", "says"), [
    ("pynq-z2", TOP, "synth_design -top nearflash_top", "synth_design -top other", "module other is not in the sources"),
    ("pynq-z2", TOP.replace("  PS7", "  input a;\n  PS7"), "", "", "a port has no pin"),
    ("pynq-z2", TOP, "\nplace_design\n", "\n", "phys_opt_design before place_design"),
    ("pynq-z2", TOP, "check_timing_met\nstep", "step", "timing was not checked"),
    ("zcu104", PORTS, "\nvalidate_bd_design\n", "\n", "validate_bd_design first"),
    ("zcu104", PORTS.replace("[63:0] m_axi_dram_wdata", "[31:0] m_axi_dram_wdata"), "", "", "has 32 bits"),
    ("zcu104", PORTS.replace("irq;", "interrupt;"), "", "", "no pin nearflash_shell_0/irq"),
    ("zcu104", PORTS, "connect_bd_net [get_bd_pins reset/", "list [get_bd_pins reset/", "connected: .*_shell_0/rst"),
    ("zcu104", PORTS, "PSU__USE__S_AXI_GP3", "PSU__USE__S_AXI_GP4", "no parameter PSU__USE__S_AXI_GP4"),
], ids=range(9))
def test_the_stubs_can_refuse(tmp_path, name, verilog, old, new, says):
    """A script that lacks a step, or a shell that isn't as it expects: else a script that passes proves nothing."""
    script, _ = written(tmp_path, name, verilog)
    text = script.read_text()
    assert old in text
    script.write_text(text.replace(old, new))
    with pytest.raises(Refused, match=says):
        Vivado().source(script)


def test_unknown_commands_and_options_are_refused(tmp_path):
    v = Vivado()
    with pytest.raises(tkinter.TclError, match="invalid command name: report_power"):
        v.eval("report_power")
    for text, says in (("opt_design", "optimised does not follow"), ("synth_design -flat b", "unknown option -flat")):
        with pytest.raises(Refused, match=says):
            v.eval(text)
