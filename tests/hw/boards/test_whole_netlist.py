"""A whole device in its shell, through the open flow's Yosys passes: what nextpnr-xilinx would get."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.shell import board_config
from nearflash_hw.boards.builder.generated import verilog
from nearflash_hw.boards.builder.open_flow import PASSES, PINS, RESULT_FOLDER, open_flow_files
from nearflash_hw.synthesis.open_flow.netlist_rules import fit_netlist
from nearflash_hw.synthesis.yosys import run_yosys, yosys_version

#: Of 7 series (UG953), those that nextpnr-xilinx places: no latch, no multiplexer of block RAM, nothing of Yosys' own.
PLACED = re.compile(r"LUT[1-6]|INV|MUXF[78]|CARRY4|FD[RSCP]E|RAM32M|RAM64M|RAM(?:64|128)X1D|SRL16E|SRLC32E|RAMB(?:18|36)E1|"
                    r"DSP48E1|PS7|BUFG|VCC|GND")


@pytest.fixture(scope="module")
def netlist():
    """(top module, text, pins): kept by the Verilog, the passes and the tool, since it takes minutes."""
    board = find_board("pynq-z2")
    config = board_config(replace(DeviceConfig.preset("tiny"), clock_mhz=100.0), board)
    files = {"tiny.v": verilog(config, board), **open_flow_files(config, board, "tiny")}
    folder = cache_dir() / "netlist" / digest(yosys_version(), *(part for item in sorted(files.items()) for part in item))
    result = f"{RESULT_FOLDER}/netlist.json"
    with cache_entry(folder) as work:
        if work is not None:
            (work / result).parent.mkdir(parents=True)
            for name, text in files.items():
                (work / name).write_text(text)
            run_yosys(files[PASSES].splitlines(), work, [result])
    text = (folder / result).read_text()
    (top,) = [m for m in json.loads(text)["modules"].values() if int(m["attributes"].get("top", "0"), 2)]
    return top, text, files[PINS]


@pytest.mark.nightly
def test_nothing_is_in_it_that_the_open_flow_cant_take(netlist):
    top, text, pins = netlist
    cells = top["cells"]
    kinds = Counter(c["type"] for c in cells.values())
    assert not {kind for kind in kinds if not PLACED.fullmatch(kind)}
    assert kinds["PS7"] == kinds["BUFG"] == 1
    assert not top["ports"]
    assert not [(name, pin) for name, c in cells.items() for pin, bits in c["connections"].items()
                if "x" in bits and c["port_directions"][pin] == "input"]
    read = {b for c in cells.values() for pin, bits in c["connections"].items() if c["port_directions"][pin] == "input"
            for b in bits}
    assert not [name for name, c in cells.items() if c["type"] == "SRLC32E" and c["connections"].get("Q31", [0])[0] in read]
    assert not [name for name, c in cells.items() if c["type"].startswith("RAMB36") for pin, bits in c["connections"].items()
                if pin.startswith("CASCADEOUT") and bits[0] in read]
    assert kinds["FDRE"] > 5000  # a device is in it, not its ports alone
    assert len(json.loads(fit_netlist(text, pins))["modules"]) >= 1
