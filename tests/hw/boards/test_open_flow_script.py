"""The open flow's script from Verilog to a bitstream: Yosys is real, the other tools are strict stand-ins."""

import os
import subprocess
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.shell import board_config
from nearflash_hw.boards.builder.open_flow import SCRIPT, open_flow_files
from nearflash_hw.synthesis.open_flow.bitstream import check_bitstream
from stand_ins import bitstream, install, open_flow

#: A processing system that counts through a memory: no port, as a shell has none.
TOP = """
module nearflash_top;
  wire [3:0] fclk;
  wire clk;
  BUFG bufg (.I(fclk[0]), .O(clk));
  reg [9:0] n = 0;
  reg [17:0] memory [0:1023];
  reg [17:0] q;
  wire [31:0] data;
  always @(posedge clk) begin
    n <= n + 1;
    q <= memory[n];
    memory[data[9:0]] <= q + data;
  end
  PS7 ps (.FCLKCLK(fclk), .MAXIGP0ACLK(clk), .MAXIGP0WDATA(data), .MAXIGP0RDATA({14'd0, q}));
endmodule
"""
LOG = """\
Info: Device utilisation:
Info: 	         SLICE_LUTX:    412/106400     0%
Info:     iter=3 wires=9140 overused=0 overuse=0 archfail=0
Info: Routing complete.
Info: Max frequency for clock 'clk': 130.00 MHz (PASS at 100.00 MHz)
"""


@pytest.fixture(scope="module")
def netlists(tmp_path_factory):
    return tmp_path_factory.mktemp("netlists")


@pytest.fixture
def build(tmp_path, netlists):
    """A folder with the script and its inputs, and (run it) -> (exit code, output)."""
    variables = open_flow(tmp_path, LOG, netlists)
    board = find_board("pynq-z2")
    config = board_config(replace(DeviceConfig.preset("tiny"), clock_mhz=100.0), board)
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name, text in {"tiny.v": TOP, **open_flow_files(config, board, "tiny")}.items():
        (folder / name).write_text(text)

    def run(**changes):
        env = {**os.environ, **variables, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **changes}
        done = subprocess.run(["sh", folder / SCRIPT], env=env, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    return tmp_path, folder / "run" / "open_flow" / "tiny.bit", run


def test_to_the_bitstream(build):
    _, bit, run = build
    code, text = run()
    assert code == 0, text
    assert check_bitstream(bit.read_bytes(), "xc7z020clg400-1").part == "xc7z020clg400-1"
    assert text.rstrip().endswith("nearflash: done")


@pytest.mark.parametrize(("log", "says"), [
    (LOG.replace("overused=0", "overused=5"), "leaves 5 wires overused"),
    (LOG.replace("(PASS", "(FAIL"), "timing is not met: clk: 130.00 MHz (FAIL")])
def test_nothing_is_called_a_bitstream_after_a_failure(build, log, says):
    folder, bit, run = build
    (folder / "bin" / "LOG.txt").write_text(log)
    code, text = run()
    assert code == 1
    assert says in text
    assert "no seed was routed at 100 MHz" in text
    assert not bit.exists()


def test_an_earlier_bitstream_does_not_outlive_a_failure(build):
    folder, bit, run = build
    assert run()[0] == 0
    install(folder / "bin", "fasm2frames", "import sys\nprint('0x0 0x0')\nsys.exit(1)\n")  # with part of the frames written
    assert run()[0] == 1
    assert not bit.exists()


def test_a_seed_that_is_routed_is_taken(build):
    folder, bit, run = build
    (folder / "bin" / "LOG_1.txt").write_text(LOG.replace("Info: Routing complete.\n", ""))
    code, text = run(SEEDS="1 2")
    assert (code, "seed 2" in text) == (0, True)
    assert bit.exists()


def test_a_bitstream_of_another_part(build):
    folder, bit, run = build
    install(folder / "bin", "xc7frames2bit", "import sys\nfrom pathlib import Path\nsys.path.insert(0, HERE)\n"
            "from stand_ins import bitstream\nPath(sys.argv[-1]).write_bytes(bitstream('xc7z010clg400-1'))\n")
    code, text = run()
    assert (code, "not for xc7z020clg400-1" in text) == (1, True)
    assert not bit.exists()


@pytest.mark.parametrize("variable", ["NEXTPNR_XILINX_CHIPDB", "PRJXRAY_DB_DIR"])
def test_a_variable_that_is_not_set(build, variable):
    code, text = build[2](**{variable: ""})
    assert code != 0
    assert f"{variable}: set it to" in text


def test_the_stand_in_makes_what_the_parts_take():
    assert check_bitstream(bitstream("7z020clg400"), "xc7z020clg400-1").size == 4_045_564
