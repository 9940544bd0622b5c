"""The FTL model against the contract's text, worked out by hand, and against a dictionary."""

import random
import struct

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.errors import CommandError, DataError, LimitError
from nearflash.contract.nvme import Status
from nearflash.reference.ftl import FtlModel

CONFIG = DeviceConfig.preset("tiny")
PAGE = CONFIG.lba_bytes


def dram_of(model: FtlModel) -> tuple[bytearray, object]:
    dram = bytearray(CONFIG.layout.end)
    for addr, content in model.image():
        dram[addr : addr + len(content)] = content
    return dram, lambda addr, n: bytes(dram[addr : addr + n])


def test_image_of_two_writes_and_a_trim():
    m = FtlModel(CONFIG)
    a = CONFIG.layout
    m.write(3, b"a" * PAGE)
    m.write(9, b"b" * PAGE)
    m.write(3, b"c" * PAGE)
    m.trim(9)
    dram, read = dram_of(m)
    assert read(a.flash, 3 * PAGE) == b"a" * PAGE + b"b" * PAGE + b"c" * PAGE
    assert read(a.oob + 2 * 32, 32) == struct.pack("<IIQ", 0x424F464E, 3, 2) + bytes(16)
    assert read(a.map + 3 * 4, 4) == struct.pack("<I", 3)
    assert read(a.map + 9 * 4, 4) == bytes(4)
    # three pages lie on three different blocks: channel 0 die 0, channel 1 die 0, channel 0 die 1
    assert read(a.block_state, 32) == struct.pack("<HHI", 1, 1, 1) * 3 + bytes(8)
    assert read(a.superblock, 16) == struct.pack("<IIQ", 0x4253464E, 3, 3)
    assert not any(dram[a.superblock + 16 :])


def test_blocks_fill_page_by_page_over_all_dies():
    m = FtlModel(CONFIG)
    f = CONFIG.flash
    row = f.channels * f.dies * f.pages
    for i in range(row + 1):
        assert m.write(i % CONFIG.lbas, bytes([i & 255]) * PAGE) == i
    assert [m.block_state(b) for b in range(5)] == [(f.pages, True, 1)] * 4 + [(1, True, 1)]


@pytest.mark.parametrize("remount_every", [7, 1000])
def test_random_commands_survive_remounts(remount_every):
    rng = random.Random(3)
    m, expected = FtlModel(CONFIG), {}
    dram = bytearray(CONFIG.layout.end)
    for i in range(150):
        lpn = rng.randrange(CONFIG.lbas)
        if rng.random() < 0.2:
            m.trim(lpn)
            expected.pop(lpn, None)
        else:
            expected[lpn] = rng.randbytes(PAGE)
            m.write(lpn, expected[lpn])
        if i % remount_every == 0:
            for addr, content in m.image():
                dram[addr : addr + len(content)] = content
            m = FtlModel(CONFIG, lambda addr, n: bytes(dram[addr : addr + n]))
    assert all(m.read(lpn) == expected.get(lpn, bytes(PAGE)) for lpn in range(CONFIG.lbas))


def test_refusals():
    m = FtlModel(CONFIG)
    for bad in (-1, CONFIG.lbas):
        with pytest.raises(LimitError):
            m.write(bad, bytes(PAGE))
        with pytest.raises(LimitError):
            m.trim(bad)
    with pytest.raises(LimitError):
        m.write(0, bytes(PAGE - 1))
    for _ in range(CONFIG.flash.total_pages):
        m.write(1, bytes(PAGE))
    with pytest.raises(CommandError) as e:
        m.write(0, bytes(PAGE))
    assert e.value.status == Status.CAPACITY_EXCEEDED
    with pytest.raises(DataError):
        FtlModel(CONFIG, lambda addr, n: b"\x55" * n)
