"""Writes the hand-off file of a board's shell, which no vendor's tool need have seen.

Valid for pynq 3.0.1, 3.1.2 and 4.0.0. What their parsers ask for and the vendor's documentation doesn't: a direct child
``EXTERNALPORTS``, ``IS_PL="FALSE"`` on the processing system, interrupts behind an ``axi_intc``, every property of every
register; and pynq 4.0.0 asks a Zynq-7000 too for the frequency of its clocks under an UltraScale+'s name.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

from ...contract import DeviceConfig
from ...contract.boards import Board
from ...contract.errors import ConfigError
from ...contract.processing import ProcessingSystem
from ...contract.registers import Field, Register
from ...contract.shell import BLOCK_BYTES, DEVICE, INTC, Block, blocks
from .design import CONFIG

__all__ = ["write_hwh"]

VERSIONS = {"processing_system7": "5.5", "zynq_ultra_ps_e": "3.5"}
INTERRUPTS = {"processing_system7": "IRQ_F2P", "zynq_ultra_ps_e": "pl_ps_irq0"}
CONCAT = "xlconcat_0"
IDLE_MHZ = 100.0  # what PYNQ sets clocks to that no design uses
CLOCKS = 4
ACCESS = {"ro": "read-only", "rw": "read-write", "wo": "write-only", "w1c": "read-write"}
AXI = "xilinx.com:interface:aximm:1.0"
#: AXI ports of a PS8, by the numbers under which its parameters know them (PG201, "PL AXI interface").
PS8_MASTERS = ("M_AXI_HPM0_FPD", "M_AXI_HPM1_FPD", "M_AXI_HPM0_LPD")
PS8_SLAVES = ("S_AXI_HPC0_FPD", "S_AXI_HPC1_FPD", "S_AXI_HP0_FPD", "S_AXI_HP1_FPD", "S_AXI_HP2_FPD", "S_AXI_HP3_FPD",
              "S_AXI_LPD")
PS8_WIDEST = 128
REGISTER_BITS = 32


def write_hwh(config: DeviceConfig, board: Board, name: str) -> str:
    """The hand-off file of the shell around ``config``'s device on ``board``, called ``name``: the same text every time.

    ``config`` is one of :func:`~nearflash.contract.shell.board_config`. The device's parameters hold its configuration
    (``CONFIG``, JSON) and ``DESIGN_ID``, so that a driver needs no other file. Raises
    :class:`~nearflash.contract.errors.ConfigError` for a board without a processing system, or a clock that it can't make.
    """
    ps = board.ps
    if ps is None:
        raise ConfigError("board", board.name, "has no processing system that a hand-off file could describe")
    root = ET.Element("EDKSYSTEM", EDWVERSION="1.2")
    family = "zynq" if ps.axi == 3 else "zynquplus"
    ET.SubElement(root, "SYSTEMINFO", ARCH=family, DEVICE=board.part.order_code, NAME=name)
    ET.SubElement(root, "EXTERNALPORTS")
    modules = ET.SubElement(root, "MODULES")
    _processing_system(modules, config, board, ps)
    for block in blocks(config):
        _block(modules, config, board, ps, block)
    _module(modules, CONCAT, "xilinx.com:ip:xlconcat:2.1", {"NUM_PORTS": "1", "IN0_WIDTH": "1", "dout_width": "1"}, (
        ("In0", "I", 1, DEVICE, "irq"), ("dout", "O", 1, INTC, "intr")))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _processing_system(modules: ET.Element, config: DeviceConfig, board: Board, ps: ProcessingSystem) -> None:
    parameters = _clock_parameters(config, ps) | _port_parameters(config, ps)
    module = _module(modules, _instance(ps), f"xilinx.com:ip:{ps.kind}:{VERSIONS[ps.kind]}", parameters,
                     ((INTERRUPTS[ps.kind], "I", 1, INTC, "irq"),), in_fabric=False)
    _interfaces(module, ((ps.master, "MASTER", REGISTER_BITS), *((s, "SLAVE", ps.slave_bits(config.beat_bytes))
                                                               for s in ps.slaves)))
    _ranges(module, ((ps.master, b.name, "S_AXI", ps.window + b.offset, BLOCK_BYTES, "REGISTER") for b in blocks(config)))


def _instance(ps: ProcessingSystem) -> str:
    return f"{ps.kind}_0"


def _clock_parameters(config: DeviceConfig, ps: ProcessingSystem) -> dict[str, str]:
    """Clock 0 is the device's."""
    out: dict[str, str] = {}
    for i in range(CLOCKS):
        a, b = ps.divisors(IDLE_MHZ if i else config.clock_mhz)
        mhz, enabled = f"{ps.pll_mhz / (a * b):.6f}", str(int(i == 0))
        if ps.axi == 3:
            out |= {f"PCW_FPGA_FCLK{i}_ENABLE": enabled, f"PCW_FCLK{i}_PERIPHERAL_DIVISOR0": str(a),
                    f"PCW_FCLK{i}_PERIPHERAL_DIVISOR1": str(b), f"PCW_FCLK{i}_PERIPHERAL_CLKSRC": "IO PLL",
                    f"PCW_ACT_FPGA{i}_PERIPHERAL_FREQMHZ": mhz}
        else:
            out |= {f"PSU__FPGA_PL{i}_ENABLE": enabled, f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR0": str(a),
                    f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR1": str(b), f"PSU__CRL_APB__PL{i}_REF_CTRL__SRCSEL": "IOPLL"}
        out[f"PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ"] = mhz
    return out


def _port_parameters(config: DeviceConfig, ps: ProcessingSystem) -> dict[str, str]:
    """Widths of AXI ports: PYNQ writes them into a PS8's registers, of all ports, used or not."""
    bits = ps.slave_bits(config.beat_bytes)
    if ps.axi == 3:
        return {f"PCW_{s}_DATA_WIDTH": str(bits) for s in ps.slaves}
    widths = {f"C_MAXIGP{k}_DATA_WIDTH": REGISTER_BITS if m == ps.master else PS8_WIDEST for k, m in enumerate(PS8_MASTERS)}
    widths |= {f"C_SAXIGP{k}_DATA_WIDTH": bits if s in ps.slaves else PS8_WIDEST for k, s in enumerate(PS8_SLAVES)}
    return {name: str(width) for name, width in widths.items()}


def _block(modules: ET.Element, config: DeviceConfig, board: Board, ps: ProcessingSystem, block: Block) -> None:
    if block.name == DEVICE:
        parameters = {"DESIGN_ID": f"{config.design_id:#010x}", "CLOCK_MHZ": f"{config.clock_mhz:.6f}",
                      CONFIG: json.dumps(config.to_dict(), separators=(",", ":"))}
        ports = (("irq", "O", 1, CONCAT, "In0"),)
        masters = ("M_AXI_HOST", "M_AXI_DRAM")
    elif block.name == INTC:
        parameters = {"C_NUM_INTR_INPUTS": "1", "C_HAS_FAST": "0", "C_IRQ_CONNECTION": "1"}
        ports = (("intr", "I", 1, CONCAT, "dout"), ("irq", "O", 1, _instance(ps), INTERRUPTS[ps.kind]))
        masters = ()
    else:
        parameters, ports, masters = {}, (), ()
    module = _module(modules, block.name, block.vlnv, parameters, ports)
    space = ET.SubElement(ET.SubElement(module, "ADDRESSBLOCKS"), "ADDRESSBLOCK", ACCESS="read-write", INTERFACE="S_AXI",
                          NAME="Reg", RANGE=str(BLOCK_BYTES), USAGE="register")
    registers = ET.SubElement(space, "REGISTERS")
    for r in block.registers:
        _register(registers, r)
    _interfaces(module, (("S_AXI", "SLAVE", REGISTER_BITS), *((m, "MASTER", config.beat_bytes * 8) for m in masters)))
    if masters:
        _ranges(module, ((m, _instance(ps), s, base, size, "MEMORY") for m, s in zip(masters, ps.slaves, strict=True)
                         for base, size in board.memory()))


def _module(modules: ET.Element, instance: str, vlnv: str, parameters: Mapping[str, str],
            ports: Iterable[tuple[str, str, int, str, str]], in_fabric: bool = True) -> ET.Element:
    """``ports``: (name, direction, bits, instance and port that it is connected to)."""
    _, _, kind, version = vlnv.split(":")
    hard = {} if in_fabric else {"IS_PL": "FALSE"}
    module = ET.SubElement(modules, "MODULE", {
        "FULLNAME": f"/{instance}", "HWVERSION": version, "INSTANCE": instance, "IPTYPE": "PERIPHERAL", "IS_ENABLE": "1",
        **hard, "MODTYPE": kind, "VLNV": vlnv})
    group = ET.SubElement(module, "PARAMETERS")
    for name, value in parameters.items():
        ET.SubElement(group, "PARAMETER", NAME=name, VALUE=value)
    group = ET.SubElement(module, "PORTS")
    for name, way, bits, other, port in ports:
        p = ET.SubElement(group, "PORT", DIR=way, LEFT=str(bits - 1), NAME=name, RIGHT="0",
                          SIGIS="undef" if kind == "xlconcat" else "INTERRUPT")
        ET.SubElement(ET.SubElement(p, "CONNECTIONS"), "CONNECTION", INSTANCE=other, PORT=port)
    return module


def _interfaces(module: ET.Element, buses: Iterable[tuple[str, str, int]]) -> None:
    group = ET.SubElement(module, "BUSINTERFACES")
    for name, kind, bits in buses:
        ET.SubElement(group, "BUSINTERFACE", DATAWIDTH=str(bits), NAME=name, TYPE=kind, VLNV=AXI)


def _ranges(module: ET.Element, ranges: Iterable[tuple[str, str, str, int, int, str]]) -> None:
    """``ranges``: (master port, instance, slave port, address, bytes, REGISTER or MEMORY)."""
    group = ET.SubElement(module, "MEMORYMAP")
    for master, instance, slave, base, size, kind in ranges:
        ET.SubElement(group, "MEMRANGE", ADDRESSBLOCK="Reg" if kind == "REGISTER" else "Mem", BASEVALUE=f"0x{base:08X}",
                      HIGHVALUE=f"0x{base + size - 1:08X}", INSTANCE=instance, MASTERBUSINTERFACE=master, MEMTYPE=kind,
                      SLAVEBUSINTERFACE=slave)


def _register(registers: ET.Element, r: Register) -> None:
    element = ET.SubElement(registers, "REGISTER", NAME=r.name)
    _properties(element, {"DESCRIPTION": r.doc, "ADDRESS_OFFSET": f"{r.offset:#x}", "SIZE": str(REGISTER_BITS),
                          "ACCESS": ACCESS[r.access], "IS_ENABLED": "true", "RESET_VALUE": f"{r.reset:#x}"})
    fields = ET.SubElement(element, "FIELDS")
    for f in r.fields:
        _field(ET.SubElement(fields, "FIELD", NAME=f.name), f)


def _field(element: ET.Element, f: Field) -> None:
    _properties(element, {"DESCRIPTION": f.doc, "ADDRESS_OFFSET": str(f.lsb), "ACCESS": ACCESS[f.access],
                          "MODIFIED_WRITE_VALUES": "oneToClear" if f.access == "w1c" else "", "WRITE_CONSTRAINT": "0",
                          "READ_ACTION": "", "BIT_OFFSET": str(f.lsb), "BIT_WIDTH": str(f.width)})


def _properties(element: ET.Element, properties: Mapping[str, str]) -> None:
    for name, value in properties.items():
        ET.SubElement(element, "PROPERTY", NAME=name, VALUE=value)
