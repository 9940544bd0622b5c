"""Ours and PYNQ's own parser agree on hand-off files: on real ones of the vendor's tool, and on what is written here."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from nearflash.board.hwh import read_hwh, write_hwh
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS
from nearflash.contract.shell import blocks, board_config

from bench.pynq_environments import VERSIONS, run_python

REAL = ("pynq_v2.4_Pynq-Z2_base.hwh", "pynq_v2.4_ZCU104_base.hwh")
STOCK = Path(__file__).with_name("stock_parser.py")


@pytest.fixture(scope="module", params=VERSIONS)
def stock(request):
    """A function of files' paths: what that release of pynq makes of each."""

    def parse(*paths):
        done = run_python(request.param, str(STOCK), *map(str, paths), board=None)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)["files"]

    return parse


def registers(ip):
    return {r.name: {"address_offset": r.offset, "size": r.bits, "access": r.access, "description": r.doc, "fields": {
        f.name: {"bit_offset": f.lsb, "bit_width": f.width, "access": f.access, "description": f.doc} for f in r.fields}}
        for r in ip.registers}


def agree(ours, theirs):
    assert (ours.ps, ours.ps_kind) == (theirs["ps"], theirs["family"])
    their_ips = {name: ip for name, ip in theirs["ips"].items() if "phys_addr" in ip}
    assert {n for n, ip in ours.ips.items() if not ip.memory} == set(their_ips)
    assert {n for n, ip in ours.ips.items() if ip.memory} == set(theirs["memories"]) - {"PSDDR"}
    for name, theirs_ip in {**their_ips, **{n: m for n, m in theirs["memories"].items() if n in ours.ips}}.items():
        ip = ours.ips[name]
        assert (ip.base, ip.size) == (theirs_ip["phys_addr"], theirs_ip["addr_range"]), name
        assert registers(ip) == theirs_ip["registers"], name
    for name, theirs_ip in their_ips.items():
        assert ours.ips[name].vlnv == theirs_ip["type"]
    assert {str(i): (c.enabled, *c.divisors) for i, c in enumerate(ours.clocks)} == {
        i: (bool(c["enable"]), c["divisor0"], c["divisor1"]) for i, c in theirs["clocks"].items()}
    # pynq lists a concatenation's inputs beside the pins that drive them
    their_pins = {pin: (p["controller"], p["index"]) for pin, p in theirs["pins"].items()
                  if not re.fullmatch(r".*/In\d+", pin)}
    assert {pin: (i.controller, i.index) for pin, i in ours.interrupts.items()} == their_pins
    assert ours.controllers == {c: v["raw_irq"] for c, v in theirs["controllers"].items()}


@pytest.fixture(scope="module")
def real(shared_data):
    return [shared_data / "hwh" / name for name in REAL]


def test_real_files(stock, real):
    for path, theirs in zip(real, stock(*real), strict=True):
        agree(read_hwh(path), theirs)


def test_what_is_written(stock, tmp_path):
    paths = []
    for board in PYNQ_BOARDS:
        config = board_config(replace(DeviceConfig.preset("tiny"), clock_mhz=board.ps.clock_below(board.clock_mhz)), board)
        paths.append(tmp_path / f"{board.name}.hwh")
        paths[-1].write_text(write_hwh(config, board, "tiny"))
    for board, path, theirs in zip(PYNQ_BOARDS, paths, stock(*paths), strict=True):
        agree(read_hwh(path), theirs)
        assert {b.name for b in blocks(config)} < set(theirs["ips"])
        assert theirs["ips"]["nearflash_0"]["interrupts"]["irq"]["controller"] == "axi_intc_0"
        assert board.ps.arch == {"processing_system7": "armv7l", "zynq_ultra_ps_e": "aarch64"}[theirs["family"]]


def test_real_files_by_themselves(real):
    """Counted by other means in the files, and known of the boards."""
    z2, zcu104 = map(read_hwh, real)
    assert [(c.divisors, c.mhz) for c in z2.clocks[:2]] == [((5, 2), 100.0), ((7, 1), 142.857132)]
    assert zcu104.clocks[0].divisors == (15, 1)
    assert z2.ps_parameters["PCW_CRYSTAL_PERIPHERAL_FREQMHZ"] == "50"
    assert (len(z2.interrupts), z2.controllers) == (15, {"system_interrupts": 61})
    assert z2.ips["leds_gpio"].base == 0x4125_0000
