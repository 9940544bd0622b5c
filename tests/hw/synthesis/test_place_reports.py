"""Reports of the tools that need a licence or a big installation: read from samples, run through stand-ins on PATH."""

import os

import pytest
from nearflash.contract import BOARDS, PARTS, ConfigError
from nearflash_hw.synthesis.place import choose, vivado, xilinx
from nearflash_hw.synthesis.place.tools import run_tool
from nearflash_hw.synthesis.yosys import SynthesisError
from place_samples import RTLIL, VIVADO_TIMING, VIVADO_UTILIZATION, XILINX_LOG, XILINX_LOG_TYPED


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """Programs put here are found first; results are cached elsewhere."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path / "cache"))
    return folder


def test_vivado_critical_path():
    wns, levels, steps = vivado.parse_timing(VIVADO_TIMING)
    assert (wns, levels) == (-0.25, 2)
    assert [(s.kind, s.ns) for s in steps] == [("clk-to-q", 0.456), ("routing", 0.8), ("logic", 0.124), ("routing", 0.0),
                                               ("logic", 0.522), ("routing", 0.088)]
    assert steps[4].at == "unit/sum_reg[3]_i_1/CO[3] CARRY4"
    assert sum(s.ns for s in steps) == pytest.approx(1.99)  # "Data Path Delay"


def test_vivado_utilization_leaves_the_harness_out():
    assert vivado.parse_utilization(VIVADO_UTILIZATION) == {"lut": 1234, "lutram": 120, "srl": 30, "ff": 1640, "bram36": 3,
                                                            "bram18": 1, "dsp": 32}


@pytest.mark.parametrize("text", ["", VIVADO_TIMING.replace("-0.250 ", "   NA  "), VIVADO_TIMING[:900]])
def test_vivado_report_that_ended_early(text):
    with pytest.raises(SynthesisError):
        vivado.parse_timing(text)


@pytest.mark.parametrize("log", [XILINX_LOG, XILINX_LOG_TYPED])
def test_nextpnr_log_last_path_counts(log):
    fmax, steps, used, available = xilinx.parse_log(log)
    assert fmax == 357.14
    assert [(s.kind, s.ns) for s in steps] == [("clk-to-q", 0.5), ("routing", 1.2), ("logic", 0.1), ("routing", 0.9),
                                               ("setup", 0.1)]
    assert used == {"half_lut": 412, "ff": 530, "carry4": 21, "bram18": 3, "bram36": 6, "dsp": 4}
    assert (available["half_lut"], available["dsp"]) == (106_400, 220)  # 53,200 LUTs, two places each


def test_nextpnr_log_without_a_path():
    with pytest.raises(SynthesisError, match="no critical path"):
        xilinx.parse_log("Info: Packing IOs..\n")
    with pytest.raises(SynthesisError, match="SLICE_LUTX"):  # names that another version may have
        xilinx.parse_log(XILINX_LOG.replace("SLICE_LUTX:", "SLICE_LUT:"))


def test_vivado_run(bin_folder, tmp_path):
    for name, text in (("timing.txt", VIVADO_TIMING), ("utilization.txt", VIVADO_UTILIZATION)):
        (tmp_path / name).write_text(text)
    program(bin_folder, "vivado", f"""
if [ "$1" = -version ]; then echo "vivado v2099.1 (64-bit)"; exit 0; fi
test -s unit.v && grep -q xc7z020clg400-1 run.tcl && grep -q 'period 8.000' run.tcl || exit 1
cp {tmp_path}/timing.txt timing.rpt; cp {tmp_path}/utilization.txt utilization.rpt""")
    got = vivado.place_vivado(RTLIL, PARTS["XC7Z020"], 125.0, 60)
    assert (got.tool, got.version, got.part, got.stand_in) == ("Vivado", "vivado v2099.1 (64-bit)", "xc7z020clg400-1", False)
    assert got.fmax_mhz == pytest.approx(1e3 / 8.25)
    assert got.slack_ns(125) == pytest.approx(-0.25)
    assert got.harness_ff == 2 + 2 + 1 + 1
    assert got.to_dict(125)["used"]["ff_count"] == 1640
    program(bin_folder, "vivado", '[ "$1" = -version ] && echo "vivado v2099.1 (64-bit)"')
    assert vivado.place_vivado(RTLIL, PARTS["XC7Z020"], 125.0, 60) == got  # cached
    with pytest.raises(SynthesisError, match=r"timing\.rpt"):
        vivado.place_vivado(RTLIL, PARTS["XC7A200T"], 125.0, 60)


def test_auto_takes_what_is_there(bin_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bin_folder))
    assert choose("auto", BOARDS["pynq-z2"]) == "ecp5"
    program(bin_folder, "nextpnr-xilinx", "")
    monkeypatch.setenv(xilinx.CHIPDB, "xc7z020.bin")
    assert choose("auto", BOARDS["pynq-z2"]) == "nextpnr-xilinx"
    assert choose("auto", BOARDS["zcu104"]) == "ecp5"  # not a 7-series part
    program(bin_folder, "vivado", "")
    assert choose("auto", BOARDS["pynq-z2"]) == "vivado"
    assert choose("ecp5", BOARDS["pynq-z2"]) == "ecp5"
    with pytest.raises(ConfigError, match="tool"):
        choose("ise", BOARDS["pynq-z2"])


def test_a_tool_that_hangs_is_ended(tmp_path):
    with pytest.raises(SynthesisError, match="took more than 1 s"):
        run_tool(["sh", "-c", "sleep 100 & sleep 100"], tmp_path, "log", [], 1)


def test_a_tool_that_fails_shows_its_last_lines(tmp_path):
    with pytest.raises(SynthesisError, match="no such die"):
        run_tool(["sh", "-c", "echo no such die; exit 3"], tmp_path, "log", [], 10)
