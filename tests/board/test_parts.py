"""Parts of the virtual board that know nothing of pynq."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from nearflash.contract.boards import PYNQ_BOARDS
from nearflash.contract.processing import PS7, PS8
from nearflash_sim.board import errors
from nearflash_sim.board.memory import LINE, DdrMemory
from nearflash_sim.board.ps_registers import CRF_APB, CRL_APB, HP0_WIDTH, SLCR, PsRegisters

MIB = 1 << 20


class FakeDevice:
    """A device's memory, and which of its lines it wrote."""

    def __init__(self):
        self.content, self.written, self.windows = {}, set(), {}
        self.dram = self

    def open_window(self, address, n, shadow):
        self.windows[address] = shadow

    def close_window(self, address):
        del self.windows[address]

    def synchronise_window(self, address, n):
        self.written -= set(range(address // LINE, (address + n) // LINE))

    def window_stale(self, address, n):
        return any(line in self.written for line in range(address // LINE, (address + n - 1) // LINE + 1))

    def fill(self, address, value, n):
        self.write(address, bytes([value]) * n)

    def write(self, address, content):
        self.content.update(zip(range(address, address + len(content)), bytes(content), strict=True))

    def read_into(self, address, out):
        out[:] = [self.content.get(address + k, 0) for k in range(len(out))]

    def device_writes(self, address, content):
        self.write(address, content)
        self.written |= set(range(address // LINE, (address + len(content) - 1) // LINE + 1))


@dataclass
class Bench:
    device: FakeDevice


@pytest.fixture
def ddr():
    return DdrMemory(Bench(FakeDevice()), [(MIB, MIB), (1 << 35, MIB)])


def test_the_upper_part_of_the_memory_is_used_first(ddr):
    first = ddr.allocate(MIB)
    second = ddr.allocate(100)
    assert (first.address, second.address) == (1 << 35, MIB)
    with pytest.raises(errors.OutOfMemory, match="1048576 bytes of contiguous memory"):
        ddr.allocate(MIB)
    ddr.free(first)
    ddr.free(first)
    assert ddr.allocate(MIB).address == 1 << 35


def test_a_cache_against_a_model(ddr):
    """Writes, flushes, invalidates and the device's own writes at random: the memory and the processor's view are what a
    write-back cache of lines makes of them."""
    rng = random.Random(0)
    region = ddr.allocate(1000)
    device = ddr._board.device
    size = len(region.shadow)
    memory, view, dirty = bytearray(size), bytearray(size), set()
    for _ in range(2000):
        at = rng.randrange(1000)
        n = rng.randrange(1, min(200, 1000 - at) + 1)
        lines = range(at // LINE, (at + n - 1) // LINE + 1)
        act = rng.choice(("write", "flush", "invalidate", "device"))
        if act == "write":
            value = rng.randbytes(n)
            dirty |= {k for k in lines if any(view[j] != value[j - at] for j in range(max(at, k * LINE), min(at + n, k *
            LINE + LINE)))}
            view[at : at + n] = value
            region.shadow[at : at + n] = np.frombuffer(value, np.uint8)
        elif act == "flush":
            ddr.flush(region, at, n)
            for k in lines:
                if k in dirty:
                    memory[k * LINE : k * LINE + LINE] = view[k * LINE : k * LINE + LINE]
            dirty -= set(lines)
        elif act == "device":
            value = rng.randbytes(n)
            memory[at : at + n] = value
            device.device_writes(region.address + at, value)
            assert ddr.stale(region, at, n)
        elif dirty & set(lines):
            with pytest.raises(errors.LostWrite, match="was written and not flushed"):
                ddr.invalidate(region, at, n)
        else:
            ddr.invalidate(region, at, n)
            view[lines[0] * LINE : lines[-1] * LINE + LINE] = memory[lines[0] * LINE : lines[-1] * LINE + LINE]
            assert not ddr.stale(region, at, n)
        assert region.shadow.tobytes() == bytes(view)
        out = np.zeros(size, np.uint8)
        device.read_into(region.address, out)
        assert out.tobytes() == bytes(memory)


def test_ranges_beyond_a_buffer_are_no_buffers(ddr):
    region = ddr.allocate(100)
    for offset, n in ((-64, 8), (96, 8), (0, 101)):
        for act in (ddr.flush, ddr.invalidate):
            with pytest.raises(errors.BogusBuffer, match="of a buffer of 100 bytes"):
                act(region, offset, n)


def test_what_an_access_outside_means(ddr):
    high, low = ddr.allocate(MIB), ddr.allocate(4096)
    assert type(ddr.explain(high.address % (1 << 32) + 5, True, 7)) is errors.TruncatedAddress
    assert type(ddr.explain(low.address + 4096, False, 7)) is errors.OutsideBuffer
    assert "read address 0x101000 in cycle 7" in str(ddr.explain(low.address + 4096, False, 7))
    ddr.free(low)
    assert type(ddr.explain(low.address + 5, True, 7)) is errors.UseAfterFree


@pytest.mark.parametrize("board", PYNQ_BOARDS, ids=lambda b: b.name)
def test_clock_after_power_up_and_as_the_contract_divides_it(board):
    registers = PsRegisters(board.ps)
    assert registers.fabric_mhz == pytest.approx(100.0, rel=1e-4)
    at, shift = (SLCR + 0x170, 20) if board.ps is PS7 else (CRL_APB + 0xC0, 16)
    for mhz in (board.ps.clock_below(board.clock_mhz), board.ps.clock_below(33.0)):
        a, b = board.ps.divisors(mhz)
        registers.write(at, registers.read(at) & ~(0x3F << shift | 0x3F << 8) | b << shift | a << 8)
        assert registers.fabric_mhz == pytest.approx(mhz, rel=1e-4)


def test_clock_sources_and_gate():
    seven, eight = PsRegisters(PS7), PsRegisters(PS8)
    seven.write(SLCR + 0x170, 1 << 20 | 10 << 8 | 2 << 4)  # from the Arm PLL: 26 x 50 MHz
    assert seven.fabric_mhz == 130.0
    eight.write(CRL_APB + 0xC0, 1 << 24 | 1 << 16 | 10 << 8 | 3)  # from the DPLL
    assert eight.fabric_mhz == pytest.approx(33.333 * (eight.read(CRF_APB + 0x2C) >> 8 & 0x7F) / 2 / 10)
    eight.write(CRL_APB + 0xC0, 1 << 16 | 10 << 8)
    assert eight.fabric_mhz == 0.0


def test_port_widths():
    registers = PsRegisters(PS8)
    for value, bits in ((0, 128), (1, 64), (2, 32)):
        registers.write(HP0_WIDTH, value)
        assert registers.slave_bits == bits
    assert PsRegisters(PS7).slave_bits == 64
    assert SLCR in PsRegisters(PS7)
    assert CRL_APB not in PsRegisters(PS7)
