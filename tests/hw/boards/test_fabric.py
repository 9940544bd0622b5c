"""The fabric of every board: its ports, and the configurations that it refuses. What it does: tests/cocotb."""

from dataclasses import replace

import pytest
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS, find_board
from nearflash.contract.shell import board_config
from nearflash_hw.boards.fabric import Fabric
from nearflash_hw.primitives.axi import Axi3Signature, AxiSignature
from nearflash_hw.verilog import component_ports

TINY = DeviceConfig.preset("tiny")
WIDE = replace(TINY, beat_bytes=32, lookup=replace(TINY.lookup, lanes=8))


def fabric(config, board):
    board = find_board(board)
    return Fabric(board_config(replace(config, clock_mhz=100.0 if board.ps.axi == 3 else 187.5), board), board)


@pytest.mark.parametrize(("config", "board", "memory", "slave"), [
    (TINY, "pynq-z1", Axi3Signature(32, 64, 6), Axi3Signature(32, 32, 12)),
    (WIDE, "pynq-z2", Axi3Signature(32, 64, 6), Axi3Signature(32, 32, 12)),
    (TINY, "zcu104", AxiSignature(40, 64, 6), AxiSignature(40, 32, 16)),
    (WIDE, "kv260", AxiSignature(40, 128, 6), AxiSignature(40, 32, 16))])
def test_ports_are_the_processing_systems(config, board, memory, slave):
    members = fabric(config, board).signature.members
    assert members["m_axi_host"].signature == members["m_axi_dram"].signature == memory
    assert members["s_axi"].signature.flip() == slave


def test_port_names_are_those_that_tools_infer():
    z2, zcu = (set(component_ports(fabric(TINY, board))) for board in ("pynq-z2", "zcu104"))
    assert z2 - zcu == {"s_axi_wid", "m_axi_host_wid", "m_axi_dram_wid"}
    assert not zcu - z2
    assert {"irq", "s_axi_awaddr", "m_axi_host_arvalid", "m_axi_dram_bresp"} <= z2


@pytest.mark.parametrize("board", [b.name for b in PYNQ_BOARDS])
def test_a_configuration_for_another_bus_is_refused(board):
    board = find_board(board)
    with pytest.raises(ConfigError, match=r"bus = BusConfig.*must be as"):
        Fabric(replace(fabric(WIDE, board.name).config, bus=replace(WIDE.bus, max_burst=256)), board)
    with pytest.raises(ConfigError, match="board = 'xcvu9p'"):
        Fabric(TINY, find_board("xcvu9p"))
