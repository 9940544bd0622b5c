"""The open flow's traps: what nextpnr-xilinx rejects is kept from it or refused by name, and what it only says it did is
refused. The tool is a stand-in that is as strict; Yosys is real."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from nearflash.contract import PARTS
from nearflash_hw.synthesis.open_flow import netlist_rules
from nearflash_hw.synthesis.open_flow.bitstream import START, SYNC, BitstreamError, check_bitstream
from nearflash_hw.synthesis.open_flow.netlist_rules import NetlistError, fit_netlist
from nearflash_hw.synthesis.open_flow.passes import LUT_RAMS, LUT_RAMS_FILE, synthesis_passes
from nearflash_hw.synthesis.open_flow.route_log import RouteError, check_route
from nearflash_hw.synthesis.place import xilinx
from nearflash_hw.synthesis.yosys import SynthesisError, run_yosys
from place_samples import RTLIL, XILINX_LOG

PIN_CLK = "set_property PACKAGE_PIN H16 [get_ports clk]\nset_property IOSTANDARD LVCMOS33 [get_ports clk]\n"

# -- netlist


def cell(kind, connections, outputs=("O", "Q", "Q31", "DOA", "DOD", "CASCADEOUTA"), **parameters):
    return {"type": kind, "parameters": parameters, "connections": connections,
            "port_directions": {p: "output" if p in outputs else "input" for p in connections}}


def netlist(**cells):
    """Of a top with port clk (net 2), and a library cell beside it as Yosys writes it."""
    top = {"attributes": {"top": "1"}, "ports": {"clk": {"direction": "input", "bits": [2]}}, "cells": cells}
    library = {"attributes": {"blackbox": "1"}, "ports": {"I": {"direction": "input", "bits": [2, 3]}}, "cells": {}}
    return json.dumps({"modules": {"top": top, "LUT2": library}})


def test_a_netlist_that_keeps_the_rules():
    text = netlist(a=cell("FDRE", {"C": [2], "D": [4], "Q": [3]}), b=cell("INV", {"I": [3], "O": [4]}),
                   c=cell("RAMB36E1", {"CASCADEINA": ["0"], "CASCADEOUTA": [9]}, RAM_EXTENSION_A="NONE"),
                   d=cell("SRLC32E", {"D": [3], "Q": [4], "Q31": [8]}))
    assert json.loads(fit_netlist(text, PIN_CLK)) == json.loads(text)


@pytest.mark.parametrize(("bad", "says"), [
    (cell("$scopeinfo", {}), r"1 cells of type \$scopeinfo"), (cell("RAM64X1S", {"O": [3]}), "RAM64X1S"),
    (cell("RAM256X1S", {"O": [3]}), "RAM256X1S"), (cell("OBUFT", {"O": [3]}), "OBUFT"),
    (cell("RAMB36E1", {}, RAM_EXTENSION_A="UPPER"), "cascaded RAMB36E1: bad"),
    (cell("RAMB36E1", {}, RAM_EXTENSION_B="LOWER "), "cascaded RAMB36E1: bad"),
    (cell("RAMB36E1", {"CASCADEOUTA": [3]}), "cascaded RAMB36E1: bad"),
    (cell("SRLC32E", {"Q31": [3]}), r"cascaded SRLC32E \(Q31\): bad"),
    (cell("RAM64M", {"ADDRA": [3, "x"]}), r"undefined inputs \(x\): bad.ADDRA"),
])
def test_cells_are_refused_by_name(bad, says):
    with pytest.raises(NetlistError, match=says):
        fit_netlist(netlist(bad=bad, reader=cell("INV", {"I": [3]})), PIN_CLK)


@pytest.mark.parametrize(("pins", "says"), [
    ("", "ports without PACKAGE_PIN: clk; ports without IOSTANDARD: clk"),
    (PIN_CLK.split("\n")[0], "without IOSTANDARD: clk"),
    (PIN_CLK.replace("clk", "clk2"), "without PACKAGE_PIN: clk"), (PIN_CLK.replace("set_", "# set_"), "PACKAGE_PIN")])
def test_ports_need_pins(pins, says):
    with pytest.raises(NetlistError, match=says):
        fit_netlist(netlist(), pins)


def test_wide_ports_need_a_pin_a_bit():
    text = netlist().replace('"bits": [2]}', '"bits": [2, 3]}')
    with pytest.raises(NetlistError, match=r"PACKAGE_PIN: clk\[1\]"):
        fit_netlist(text, PIN_CLK.replace("clk", "{clk[0]}"))
    fit_netlist(text, PIN_CLK.replace("clk", "{clk[0]}") + PIN_CLK.replace("clk", "{clk[1]}"))


def test_open_outputs_of_lut_rams_are_dropped():
    text = netlist(m=cell("RAM64M", {"DOA": [3], "DOD": [4], "WCLK": [2]}), r=cell("INV", {"I": [3]}),
                   f=cell("FDRE", {"Q": [5]}))
    cells = json.loads(fit_netlist(text, PIN_CLK))["modules"]["top"]["cells"]
    assert list(cells["m"]["connections"]) == ["DOA", "WCLK"]
    assert cells["f"]["connections"] == {"Q": [5]}  # of LUT RAMs alone


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"modules": {}}', netlist()[:-3]])
def test_what_is_no_netlist(text):
    with pytest.raises(NetlistError, match="not a netlist"):
        fit_netlist(text, "")


# -- Yosys' netlist of what the real one tripped over

TRAPS = """
module sub(input clk, input d, output q);  // a chain that Yosys would make cascaded SRLC32E of
  reg [99:0] chain;
  always @(posedge clk) chain <= {chain[98:0], d};
  assign q = chain[99];
endmodule
module traps(input clk, input d, output reg q);
  reg [31:0] n;
  reg [0:0] deep [0:65535];       // 64K x 1: a cascade of two RAMB36E1
  reg [0:0] single [0:63];        // one port: RAM64X1S
  reg [0:0] single256 [0:255];    // RAM256X1S
  reg a, b, c;
  wire s;
  sub sub (.clk(clk), .d(d), .q(s));
  always @(posedge clk) begin
    n <= {n[30:0], d};
    if (n[31]) deep[n[15:0]] <= d;
    a <= deep[n[30:15]];
    if (n[30]) single[n[5:0]] <= d;
    b <= single[n[5:0]];
    if (n[29]) single256[n[7:0]] <= d;
    c <= single256[n[7:0]];
    q <= a ^ b ^ c ^ s;
  end
endmodule
"""


@pytest.fixture(scope="module")
def traps(tmp_path_factory):
    """Netlists of TRAPS: by the open flow's passes, and by synth_xilinx as it is."""
    folder = tmp_path_factory.mktemp("traps")
    (folder / "traps.v").write_text(TRAPS)
    (folder / LUT_RAMS_FILE).write_text(LUT_RAMS)
    run_yosys(synthesis_passes(["read_verilog traps.v"], "traps", "ours.json"), folder, ["ours.json"])
    run_yosys(["read_verilog traps.v", "synth_xilinx -flatten -family xc7 -top traps", "write_json plain.json"], folder,
              ["plain.json"])
    return {name: (folder / f"{name}.json").read_text() for name in ("ours", "plain")}


def test_the_passes_avoid_every_trap(traps):
    pins = "".join(PIN_CLK.replace("clk", p) for p in ("clk", "d", "q"))
    fitted = json.loads(fit_netlist(traps["ours"], pins))
    kinds = [c["type"] for c in fitted["modules"]["traps"]["cells"].values()]
    assert "RAMB36E1" in kinds
    assert not [k for k in kinds if k.startswith(("$", "SRL"))]
    with pytest.raises(NetlistError) as e:  # they are there without the passes, or the test tests nothing
        fit_netlist(traps["plain"], pins)
    for trap in ("$scopeinfo", "RAM64X1S", "RAM256X1S", "cascaded RAMB36E1", "cascaded SRLC32E"):
        assert trap in str(e.value), trap


# -- the router's log


def test_a_complete_routing():
    check_route(XILINX_LOG)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("overused=0 overuse=0 archfail=0", "overused=2 overuse=3 archfail=NA", "round, 3, leaves 2 wires overused"),
    ("overused=0 overuse=0 archfail=0", "overused=0 overuse=0 archfail=4", "and 4 illegal"),
    ("Info: Routing complete.\n", "", "does not follow the last round"),
    ("Info: Routing complete.\n", "Warning: Failed to find a route for arc 3 of net unit.x.\n", "Failed to find a route"),
    ("Info: Routing complete.\n", "Warning: Skipping arc 3 of net x (unroutable)\nInfo: Routing complete.\n", "Skipping"),
    ("Info: Routing complete.\n", "ERROR: router2: failed to converge - 3 overused wire(s)\n", "failed to converge"),
    ("Info: Running router2...\n", "Warning: validity check failed for SLICE_X1Y2\n", "validity check failed"),
    ("Info: Checksum", "Warning: Timing analysis failed due to presence of combinatorial loops\nInfo: Checksum", "loops"),
])
def test_a_routing_that_only_seems_complete(old, new, says):
    assert old in XILINX_LOG
    with pytest.raises(RouteError, match=says):
        check_route(XILINX_LOG.replace(old, new))


def test_a_log_that_ends_before_the_router():
    with pytest.raises(RouteError, match="no round"):
        check_route("Info: Packing constants..\nInfo: Routing complete.\n")


def test_later_iterations_count():
    again = "Info: Routing complete.\nInfo:     iter=1 wires=9 overused=1 overuse=1 archfail=NA\n"
    with pytest.raises(RouteError, match="round, 1, leaves 1"):
        check_route(XILINX_LOG + again)
    with pytest.raises(RouteError, match="does not follow the last round"):  # though it followed an earlier one
        check_route(XILINX_LOG + again.replace("=1 overuse=1 archfail=NA", "=0 overuse=0 archfail=0"))


# -- bitstreams


def bitstream(payload=None, part="7z020clg400", length=None, tags="abcd"):
    payload = b"\xff" * 32 + SYNC + bytes(4_045_564 - 36) if payload is None else payload
    texts = dict(zip("abcd", ("top;UserID=0X1", part, "2026/11/28", "12:00:00"), strict=True))
    head = b"".join(t.encode() + (len(texts[t]) + 1).to_bytes(2, "big") + texts[t].encode() + b"\0" for t in tags)
    return START + head + b"e" + (len(payload) if length is None else length).to_bytes(4, "big") + payload


@pytest.mark.parametrize("part", ["7z020clg400", "xc7z020clg400-1"])  # as Vivado and as xc7frames2bit write it
def test_a_bitstream(part):
    header = check_bitstream(bitstream(part=part), "xc7z020clg400-1")
    assert (header.part, header.size, header.date) == (part, 4_045_564, "2026/11/28")


@pytest.mark.parametrize(("change", "says"), [
    ({"part": "7z010clg400"}, "not for xc7z020clg400-1"), ({"part": ""}, "no part"),
    ({"tags": "abd"}, "tag c is missing"), ({"length": 5}, "announces 5"), ({"payload": SYNC + bytes(100)}, "has 4,045,564"),
    ({"payload": bytes(4_045_564)}, "no synchronisation word")], ids=repr)
def test_what_is_no_bitstream(change, says):
    with pytest.raises(BitstreamError, match=says):
        check_bitstream(bitstream(**change), "xc7z020clg400-1")


@pytest.mark.parametrize(("first", "last", "says"), [(1, None, "no .bit header"), (0, 0, "no .bit header"),
                                                     (0, 40, "is damaged"), (0, -1, "4,045,563 follow")])
def test_a_bitstream_that_was_cut(first, last, says):
    with pytest.raises(BitstreamError, match=says):
        check_bitstream(bitstream()[first:last], "xc7z020clg400-1")


# -- place and route


def install(folder: Path, **files: str) -> None:
    """The strict stand-in as nextpnr-xilinx in ``folder``, with its log and exit code."""
    folder.mkdir(exist_ok=True)
    source = Path(__file__).with_name("strict_nextpnr.py")
    tool = folder / "nextpnr-xilinx"
    tool.write_text(f"#!{sys.executable}\n" + source.read_text())
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tool(tmp_path, monkeypatch, cache):
    """Installs the stand-in with these files, its database set. Yosys' netlist is one for all tests; what a stand-in made
    of it is no other's, since each is of another version."""
    def put(**files):
        install(tmp_path / "bin", **{"VERSION": tmp_path.name, **files})
        return tmp_path
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NEARFLASH_CACHE", str(cache))
    (tmp_path / "xc7z020.bin").write_text("database")
    monkeypatch.setenv(xilinx.CHIPDB, str(tmp_path / "xc7z020.bin"))
    return put


def test_nextpnr_xilinx_run(tool, monkeypatch):
    folder = tool(LOG=XILINX_LOG, VERSION="0.8.2")
    got = xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)
    assert (got.version, got.part, got.stand_in, got.levels, got.fmax_mhz) == ("0.8.2", "xc7z020", False, 1, 357.14)
    assert (got.used["bram18"], got.used["bram36"], got.used["dsp"], got.used["half_lut"]) == (3, 6, 4, 412)
    assert "not timed at all" in got.to_dict(125)["caveat"]
    (folder / "bin" / "nextpnr-xilinx").write_text("#!/bin/sh\necho '(Version 0.8.2)'\n[ \"$1\" = --version ]\n")
    assert xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60) == got  # cached
    install(folder / "bin")
    assert xilinx.place_xilinx(RTLIL, PARTS["XC7A200T"], 125.0, 60).stand_in
    monkeypatch.delenv(xilinx.CHIPDB)
    with pytest.raises(SynthesisError, match=xilinx.CHIPDB):
        xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)


def test_another_seed_where_one_is_not_routed(tool):
    tool(LOG=XILINX_LOG, LOG_1=XILINX_LOG.replace("Info: Routing complete.\n", "").replace("357.14", "999.99"))
    assert xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60).fmax_mhz == 357.14


def test_no_seed_routed(tool):
    tool(LOG=XILINX_LOG.replace("overused=0", "overused=7"))
    with pytest.raises(SynthesisError, match=r"(?s)routed no placement.*seed 1: .*leaves 7 wires.*seed 3: "):
        xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)


def test_the_exit_code_counts(tool):
    tool(LOG=XILINX_LOG, EXIT="1")
    with pytest.raises(SynthesisError, match="ended with code 1"):
        xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)


def test_a_database_whose_pins_nobody_knows(tool, monkeypatch):
    folder = tool(LOG=XILINX_LOG)
    shutil.copy(folder / "xc7z020.bin", folder / "xc7k325tffg676.bin")
    monkeypatch.setenv(xilinx.CHIPDB, str(folder / "xc7k325tffg676.bin"))
    with pytest.raises(SynthesisError, match="no pins are known for the part of database xc7k325tffg676"):
        xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)


def test_a_cell_that_cannot_be_routed_stops_it_first(tool, monkeypatch):
    tool(LOG=XILINX_LOG)
    monkeypatch.setattr(netlist_rules, "KNOWN", netlist_rules.KNOWN - {"FDRE"})
    with pytest.raises(SynthesisError, match=r"can't take this design: .* cells of type FDRE"):
        xilinx.place_xilinx(RTLIL, PARTS["XC7Z020"], 125.0, 60)


def test_the_checks_are_programs(tmp_path):
    """As the scripts of a build run them: copied elsewhere, with nothing of the project importable."""
    def run(name, *args):
        path = shutil.copy(Path(netlist_rules.__file__).with_name(f"{name}.py"), tmp_path)
        return subprocess.run([sys.executable, "-I", path, *args], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                              check=False)

    (tmp_path / "pins.xdc").write_text(PIN_CLK)
    (tmp_path / "n.json").write_text(netlist(m=cell("RAM64M", {"DOA": [3]})))
    assert run("netlist_rules", "n.json", "pins.xdc").returncode == 0
    assert '"DOA"' not in (tmp_path / "n.json").read_text().split('"port_directions"')[0]
    (tmp_path / "n.json").write_text(netlist(m=cell("RAM64X1S", {})))
    done = run("netlist_rules", "n.json", "pins.xdc")
    assert (done.returncode, done.stderr.startswith("n.json: 1 cells of type RAM64X1S")) == (1, True)
    (tmp_path / "log").write_text(XILINX_LOG)
    assert run("route_log", "log").returncode == 0
    (tmp_path / "log").write_text(XILINX_LOG.replace("357.14 MHz (PASS", "100.00 MHz (FAIL"))
    assert "timing is not met" in run("route_log", "log").stderr
    (tmp_path / "x.bit").write_bytes(bitstream())
    assert run("bitstream", "x.bit", "xc7z020clg400-1").returncode == 0
    assert run("bitstream", "x.bit", "xc7z010clg400-1").returncode == 1
