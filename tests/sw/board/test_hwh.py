"""Hand-off files: what is written says what the contract says, and what is read is right or refused by its place."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from nearflash.board.hwh import HwhInterrupt, parse_hwh, read_hwh, reader, write_hwh
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS, find_board
from nearflash.contract.errors import DataError
from nearflash.contract.shell import BLOCK_BYTES, blocks, board_config

IP_XACT = {"ro": "read-only", "wo": "write-only", "rw": "read-write", "w1c": "read-write"}


def config_for(board, preset="tiny"):
    config = replace(DeviceConfig.preset(preset), clock_mhz=board.ps.clock_below(board.clock_mhz))
    return board_config(config, board)


@pytest.fixture(params=PYNQ_BOARDS, ids=lambda b: b.name)
def written(request):
    """(board, configuration, text of its file)"""
    config = config_for(request.param)
    return request.param, config, write_hwh(config, request.param, "tiny")


# -- what is written


def test_registers_and_addresses_are_the_contracts(written):
    board, config, text = written
    found = parse_hwh(text)
    wanted = blocks(config)
    assert list(found.ips) == [b.name for b in wanted]
    for b in wanted:
        ip = found.ips[b.name]
        assert (ip.vlnv, ip.base, ip.size, ip.memory) == (b.vlnv, board.ps.window + b.offset, BLOCK_BYTES, False)
        assert [(r.name, r.offset, r.bits, r.access, r.doc) for r in ip.registers] == [
            (r.name, r.offset, 32, IP_XACT[r.access], r.doc) for r in b.registers]
        assert [[(f.name, f.lsb, f.width, f.access, f.doc) for f in r.fields] for r in ip.registers] == [
            [(f.name, f.lsb, f.width, IP_XACT[f.access], f.doc) for f in r.fields] for r in b.registers]


def test_clocks_interrupts_and_names(written):
    board, config, text = written
    found = parse_hwh(text)
    first, *others = found.clocks
    assert first.enabled
    assert not any(c.enabled for c in others)
    assert board.ps.pll_mhz / (first.divisors[0] * first.divisors[1]) == pytest.approx(config.clock_mhz)
    assert first.mhz == pytest.approx(config.clock_mhz, abs=1e-5)
    assert (found.name, found.ps_kind) == ("tiny", board.ps.kind)
    assert found.controllers == {"axi_intc_0": 61 if board.ps.axi == 3 else 121}
    assert found.interrupts == {"nearflash_0/irq": HwhInterrupt("axi_intc_0", 0)}


def test_the_configuration_travels_with_it(written):
    _, config, text = written
    parameters = parse_hwh(text).ips["nearflash_0"].parameters
    assert DeviceConfig.from_dict(json.loads(parameters["CONFIG"])) == config
    assert int(parameters["DESIGN_ID"], 16) == config.design_id


def test_what_pynqs_parsers_stumble_over(written):
    """Each of these was seen to end one of pynq 3.0.1, 3.1.2 and 4.0.0 in a bare IndexError, KeyError or TypeError."""
    board, config, text = written
    root = ET.fromstring(text)
    assert [c.tag for c in root].count("EXTERNALPORTS") == 1
    modules = {m.get("INSTANCE"): m for m in root.iterfind("MODULES/MODULE")}
    (ps,) = [m for m in modules.values() if m.get("IS_PL") == "FALSE"]
    parameters = {p.get("NAME"): p.get("VALUE") for p in ps.iterfind("PARAMETERS/PARAMETER")}
    for i in range(4):  # of every processing system, says pynq 4.0.0
        assert float(parameters[f"PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ"]) > 0
    for vlnv in [e.get("VLNV") for e in root.iter() if e.get("VLNV")]:
        assert len(vlnv.split(":")) == 4
        assert "." in vlnv.split(":")[3]
    assert {"ADDRESS_OFFSET", "SIZE", "ACCESS", "DESCRIPTION", "IS_ENABLED"} <= set.intersection(*(
        {p.get("NAME") for p in r.iterfind("PROPERTY")} for r in root.iter("REGISTER")))
    assert {"BIT_OFFSET", "BIT_WIDTH", "ACCESS", "DESCRIPTION"} <= set.intersection(*(
        {p.get("NAME") for p in f.iterfind("PROPERTY")} for f in root.iter("FIELD")))
    for name, m in modules.items():  # wires end where they say they do
        for port in m.iterfind("PORTS/PORT"):
            for c in port.iter("CONNECTION"):
                back = modules[c.get("INSTANCE")].find(f"PORTS/PORT[@NAME='{c.get('PORT')}']/CONNECTIONS/CONNECTION")
                assert (back.get("INSTANCE"), back.get("PORT")) == (name, port.get("NAME"))
    for r in root.iter("MEMRANGE"):
        buses = modules[r.get("INSTANCE")].iterfind("BUSINTERFACES/BUSINTERFACE")
        assert r.get("SLAVEBUSINTERFACE") in [b.get("NAME") for b in buses]
    if board.ps.axi == 4:  # PYNQ programs the ports' widths from these
        bits = {f"C_SAXIGP{k}_DATA_WIDTH": parameters[f"C_SAXIGP{k}_DATA_WIDTH"] for k in range(7)}
        used = str(board.ps.slave_bits(config.beat_bytes))
        assert (bits["C_SAXIGP2_DATA_WIDTH"], bits["C_SAXIGP3_DATA_WIDTH"]) == (used, used)
        assert parameters["C_MAXIGP0_DATA_WIDTH"] == "32"


def test_memory_is_all_of_the_boards(written):
    board, _, text = written
    for port, slave in zip(("M_AXI_HOST", "M_AXI_DRAM"), board.ps.slaves, strict=True):
        ranges = [r for r in ET.fromstring(text).iter("MEMRANGE") if r.get("MASTERBUSINTERFACE") == port]
        assert {r.get("SLAVEBUSINTERFACE") for r in ranges} == {slave}
        sizes = {int(r.get("BASEVALUE"), 16): int(r.get("HIGHVALUE"), 16) - int(r.get("BASEVALUE"), 16) + 1 for r in ranges}
        assert sum(sizes.values()) == board.dram_bytes
        assert sorted(sizes) == [0, 0x8_0000_0000][: 1 + (board.dram_bytes > 2 << 30)]


@pytest.mark.parametrize("board", PYNQ_BOARDS, ids=lambda b: b.name)
def test_small_and_the_same_every_time(board):
    config = config_for(board, "mqsim" if board.ps.axi == 4 else "tiny")
    text = write_hwh(config, board, "x")
    assert text == write_hwh(config, board, "x")
    assert len(text.encode()) <= 200_000


def test_a_board_without_a_processing_system():
    with pytest.raises(ConfigError, match="board = 'xc7a200t'"):
        write_hwh(DeviceConfig.preset("tiny"), find_board("xc7a200t"), "x")


# -- what is read: a design made by hand, as the vendor's tool would describe it

CLOCKS = "".join(f'<PARAMETER NAME="PCW_FPGA_FCLK{i}_ENABLE" VALUE="{int(i < 2)}"/>'
                 f'<PARAMETER NAME="PCW_FCLK{i}_PERIPHERAL_DIVISOR0" VALUE="{5 + i}"/>'
                 f'<PARAMETER NAME="PCW_FCLK{i}_PERIPHERAL_DIVISOR1" VALUE="2"/>' for i in range(4))
DESIGN = f"""\ufeff<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<EDKSYSTEM>
 <SYSTEMINFO NAME="base"/>
 <EXTERNALPORTS/>
 <MODULES>
  <MODULE FULLNAME="/ps7_0" INSTANCE="ps7_0" IS_PL="FALSE" MODTYPE="processing_system7" VLNV="a:b:processing_system7:5.5">
   <PARAMETERS>{CLOCKS}<PARAMETER NAME="PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ" VALUE="100.5"/></PARAMETERS>
   <PORTS><PORT DIR="I" NAME="IRQ_F2P" LEFT="1" RIGHT="0"><CONNECTIONS><CONNECTION INSTANCE="c0" PORT="dout"/></CONNECTIONS>
   </PORT></PORTS>
   <BUSINTERFACES><BUSINTERFACE NAME="GP0" TYPE="MASTER"/><BUSINTERFACE NAME="HP0" TYPE="SLAVE"/></BUSINTERFACES>
   <MEMORYMAP>
    <MEMRANGE BASEVALUE="0x41200000" HIGHVALUE="0x4120FFFF" INSTANCE="h_a" MASTERBUSINTERFACE="GP0" MEMTYPE="REGISTER"
     SLAVEBUSINTERFACE="S_AXI"/>
    <MEMRANGE BASEVALUE="0x42000000" HIGHVALUE="0x42001FFF" INSTANCE="ram" MASTERBUSINTERFACE="GP0" MEMTYPE="MEMORY"
     SLAVEBUSINTERFACE="S"/>
    <MEMRANGE BASEVALUE="0x0" HIGHVALUE="0xFF" INSTANCE="ram" MASTERBUSINTERFACE="HP0" SLAVEBUSINTERFACE="S"/>
   </MEMORYMAP>
  </MODULE>
  <MODULE FULLNAME="/h/a" INSTANCE="h_a" MODTYPE="thing" VLNV="v:l:thing:2.0">
   <ADDRESSBLOCKS>
    <ADDRESSBLOCK INTERFACE="s_axi" USAGE="register"><REGISTERS>
     <REGISTER NAME="CTRL"><PROPERTY NAME="DESCRIPTION" VALUE="a &quot;b&quot; &lt;c&gt;"/><PROPERTY NAME="ADDRESS_OFFSET"
      VALUE="0x1C"/><PROPERTY NAME="SIZE" VALUE="15"/><PROPERTY NAME="ACCESS" VALUE="read-only"/>
      <FIELDS><FIELD NAME="run"><PROPERTY NAME="BIT_OFFSET" VALUE="3"/><PROPERTY NAME="BIT_WIDTH" VALUE="2"/>
       <PROPERTY NAME="ACCESS" VALUE="write-only"/></FIELD></FIELDS></REGISTER>
     <REGISTER NAME="CTRL"><PROPERTY NAME="ADDRESS_OFFSET" VALUE="0x20"/></REGISTER>
    </REGISTERS></ADDRESSBLOCK>
    <ADDRESSBLOCK INTERFACE="other" USAGE="register"><REGISTERS><REGISTER NAME="NO"/></REGISTERS></ADDRESSBLOCK>
   </ADDRESSBLOCKS>
   <PARAMETERS><PARAMETER NAME="C_W" VALUE="7"/></PARAMETERS>
  </MODULE>
  <MODULE FULLNAME="/ram" INSTANCE="ram" MODTYPE="bram" VLNV="v:l:bram:1.0"/>
  <MODULE FULLNAME="/c0" INSTANCE="c0" MODTYPE="xlconcat" VLNV="x:ip:xlconcat:2.1"><PORTS>
   <PORT DIR="I" NAME="In0"><CONNECTIONS><CONNECTION INSTANCE="h_a" PORT="straight"/></CONNECTIONS></PORT>
   <PORT DIR="I" NAME="In1"><CONNECTIONS><CONNECTION INSTANCE="intc" PORT="irq"/></CONNECTIONS></PORT>
   <PORT DIR="O" NAME="dout" LEFT="1" RIGHT="0"/></PORTS></MODULE>
  <MODULE FULLNAME="/intc" INSTANCE="intc" MODTYPE="axi_intc" VLNV="x:ip:axi_intc:4.1"><PORTS>
   <PORT DIR="I" NAME="intr"><CONNECTIONS><CONNECTION INSTANCE="c1" PORT="dout"/></CONNECTIONS></PORT></PORTS></MODULE>
  <MODULE FULLNAME="/c1" INSTANCE="c1" MODTYPE="xlconcat" VLNV="x:ip:xlconcat:2.1"><PORTS>
   <PORT DIR="I" NAME="In0" LEFT="1" RIGHT="0"><CONNECTIONS><CONNECTION INSTANCE="h_a" PORT="two"/></CONNECTIONS></PORT>
   <PORT DIR="I" NAME="In1"/>
   <PORT DIR="I" NAME="In2"><CONNECTIONS><CONNECTION INSTANCE="External_Ports" PORT="button"/></CONNECTIONS></PORT>
   <PORT DIR="I" NAME="In3" LEFT="1" RIGHT="0"><CONNECTIONS><CONNECTION INSTANCE="c2" PORT="dout"/></CONNECTIONS></PORT>
   <PORT DIR="O" NAME="dout"/></PORTS></MODULE>
  <MODULE FULLNAME="/c2" INSTANCE="c2" MODTYPE="xlconcat" VLNV="x:ip:xlconcat:2.1"><PORTS>
   <PORT DIR="I" NAME="In0"/>
   <PORT DIR="I" NAME="In1"><CONNECTIONS><CONNECTION INSTANCE="ram" PORT="full"/></CONNECTIONS></PORT></PORTS></MODULE>
 </MODULES>
</EDKSYSTEM>
"""


def test_a_design_made_by_hand():
    found = parse_hwh(DESIGN)
    assert (found.name, found.ps, found.ps_kind) == ("base", "ps7_0", "processing_system7")
    a, ram = found.ips["h/a"], found.ips["ram"]
    assert (a.base, a.size, a.interface, a.memory, a.vlnv, a.parameters) == (
        0x4120_0000, 0x1_0000, "S_AXI", False, "v:l:thing:2.0", {"C_W": "7"})
    (r,) = a.registers
    assert (r.name, r.offset, r.bits, r.access, r.doc) == ("CTRL", 0x1C, 15, "read-only", 'a "b" <c>')
    assert [(f.name, f.lsb, f.width, f.access) for f in r.fields] == [("run", 3, 2, "write-only")]
    assert (ram.base, ram.size, ram.memory) == (0x4200_0000, 0x2000, True)
    assert [(c.enabled, c.divisors, c.mhz) for c in found.clocks] == [
        (True, (5, 2), 100.5), (True, (6, 2), None), (False, (7, 2), None), (False, (8, 2), None)]
    assert found.controllers == {"intc": 62}  # the second input of the concatenation
    # two bits, an open one, one from outside, then the second of a concatenation of two
    assert {pin: i.index for pin, i in found.interrupts.items()} == {"h/a/two": 0, "ram/full": 5}


@pytest.mark.parametrize(("old", "new", "says"), [
    ("</EDKSYSTEM>", "", "XML = .*: the file is damaged or incomplete"), ("<EXTERNALPORTS/>", "\x01", "XML"),
    ("<EDKSYSTEM>", '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><EDKSYSTEM>', "DOCTYPE"),
    ("processing_system7", "microblaze", "processing systems = ''"),
    ('MODTYPE="bram"', 'MODTYPE="zynq_ultra_ps_e"', "processing systems = 'ps7_0, ram'"),
    ('INSTANCE="ram" MODTYPE', 'INSTANCE="h_a" MODTYPE', "MODULE INSTANCE = 'h_a'"),
    ('INSTANCE="ram" MODTYPE', 'MODTYPE', "MODULE: INSTANCE = None: is missing"),
    ("PCW_FCLK1_PERIPHERAL_DIVISOR1", "x", "PARAMETER = 'PCW_FCLK1_PERIPHERAL_DIVISOR1': is missing"),
    ('DIVISOR0" VALUE="5"', 'DIVISOR0" VALUE="five"', "PCW_FCLK0_PERIPHERAL_DIVISOR0 = 'five'"),
    ('VALUE="100.5"', 'VALUE="nan"', "PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ = 'nan'"),
    ("0x41200000", "0x" + "4" * 5000, "MEMRANGE of h_a: BASEVALUE"), ("0x41200000", "-1", "BASEVALUE = '-1'"),
    ("0x4120FFFF", "0x41100000", "HIGHVALUE = '0x41100000': must not lie below"),
    ('INSTANCE="h_a" MASTERBUSINTERFACE', 'INSTANCE="gone" MASTERBUSINTERFACE', "MEMRANGE INSTANCE = 'gone'"),
    ('VALUE="0x1C"', 'VALUE="0xQ"', "CTRL: ADDRESS_OFFSET = '0xQ'"),
    ('"BIT_WIDTH" VALUE="2"', '"BIT_WIDTH" VALUE=""', "CTRL.run: BIT_WIDTH = ''"),
    ('INSTANCE="ram" PORT="full"', 'INSTANCE="c1" PORT="dout"', "a concatenation must not feed itself"),
    ('INSTANCE="ram" PORT="full"', 'INSTANCE="off" PORT="dout"', "CONNECTION of In1: INSTANCE = 'off'"),
], ids=lambda v: str(v)[:30])
def test_broken_files_name_the_place(tmp_path, old, new, says):
    assert old in DESIGN
    path = tmp_path / "broken.hwh"
    path.write_text(DESIGN.replace(old, new))
    with pytest.raises(DataError, match=f"broken.hwh: .*{says}"):
        read_hwh(path)


def test_files_that_are_no_text(tmp_path, monkeypatch):
    path = tmp_path / "x.hwh"
    with pytest.raises(DataError, match=r"x.hwh: file = .*can't be read"):
        read_hwh(path)
    for raw in (b"\xff\xfe<\0", b"<a>\xe9</a>", b"<a>\0</a>", b""):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"x.hwh: "):
            read_hwh(path)
    path.write_text(DESIGN)
    monkeypatch.setattr(reader, "LARGEST", 1000)
    with pytest.raises(DataError, match=r"x.hwh: size = .*must be at most 1000 bytes"):
        read_hwh(path)


def test_any_damage_is_read_or_refused_by_name():
    """Seeded: a bit flipped, a run cut out, a run doubled."""
    rng = random.Random(5)
    raw = DESIGN.encode()
    refused = 0
    for _ in range(400):
        a, b = sorted(rng.randrange(len(raw)) for _ in range(2))
        b = min(b, a + 40)
        bad = [raw[:a] + bytes([raw[a] ^ 1 << rng.randrange(7)]) + raw[a + 1 :], raw[:a] + raw[b:], raw[:b] + raw[a:]][
            rng.randrange(3)]
        try:
            parse_hwh(bad.decode("utf-8", "replace"))
        except DataError:
            refused += 1
    assert refused > 100
