"""The contract between a board's shell, its description and its drivers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS, find_board
from nearflash.contract.processing import PS7, PS8
from nearflash.contract.shell import BLOCK_BYTES, blocks, board_config

TINY = DeviceConfig.preset("tiny")
WIDE = replace(TINY, beat_bytes=16, lookup=replace(TINY.lookup, lanes=4))


@pytest.mark.parametrize(("ps", "mhz"), [(PS7, 100.0), (PS7, 125.0), (PS7, 142.857), (PS8, 187.5), (PS8, 300.0)])
def test_clock_divisors(ps, mhz):
    a, b = ps.divisors(mhz)
    assert 63 >= a >= b >= 1
    assert ps.pll_mhz / (a * b) == pytest.approx(mhz, rel=1e-3)


@pytest.mark.parametrize(("ps", "mhz", "nearest"), [
    (PS7, 150.0, "142.857 and 166.667"), (PS8, 200.0, "187.5 and 214.286"), (PS8, 2000.0, "1500 and 1500")])
def test_clock_that_the_board_cannot_make_names_the_nearest(ps, mhz, nearest):
    with pytest.raises(ConfigError, match=f"clock_mhz = {mhz}.*{nearest}"):
        ps.divisors(mhz)


def test_clock_below():
    assert PS8.clock_below(200.0) == 187.5
    assert PS7.clock_below(150.0) == pytest.approx(1000 / 7)


def test_bursts_stay_within_the_ports():
    # 16 beats of 8 bytes are the longest burst of AXI3, and 8 of 16 bytes become 16 of 8.
    assert board_config(TINY, find_board("pynq-z2")).bus.max_burst == 16
    assert board_config(WIDE, find_board("pynq-z2")).bus.max_burst == 8
    assert board_config(TINY, find_board("pynq-z2")).bus.address_bits == 32
    zcu = board_config(replace(WIDE, clock_mhz=187.5), find_board("zcu104"))
    assert (zcu.bus.max_burst, zcu.bus.address_bits) == (256, 40)


def test_refused_by_the_field():
    with pytest.raises(ConfigError, match=r"board = .xc7a200t.: has no"):
        board_config(TINY, find_board("xc7a200t"))
    with pytest.raises(ConfigError, match=r"bus\.id_bits = 7: must be at most 6"):
        board_config(replace(TINY, bus=replace(TINY.bus, id_bits=7)), find_board("pynq-z2"))


@pytest.mark.parametrize("board", PYNQ_BOARDS, ids=lambda b: b.name)
def test_blocks_lie_in_the_window_and_apart(board):
    found = blocks(TINY)
    assert [b.offset for b in found] == [k * BLOCK_BYTES for k in range(len(found))]
    assert len(found) * BLOCK_BYTES <= board.ps.window_bytes
    for b in found:
        assert len(b.vlnv.split(":")) == 4
        assert "." in b.vlnv.split(":")[3]  # PYNQ's parsers trip over a version without a dot
        assert len({r.offset for r in b.registers}) == len(b.registers)
        assert all(r.offset + 4 <= BLOCK_BYTES for r in b.registers)
