"""A board's fabric as its processing system sees it, under two monitors of AXI: one of ours, and cocotbext-axi's memories
and channel monitors (which know the part of AXI3 that AXI4 has too)."""

import os
import random

import cocotb
from axi_backend import run_host_program
from cocotb.task import bridge
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp
from device_checks import lookup_program
from nearflash.contract import NearflashError
from nearflash.contract.boards import find_board
from nearflash.contract.shell import BLOCK_BYTES, SHELL_MAGIC
from nearflash.runtime import Device, HostAllocator
from nearflash_sim.bench.cocotb import start
from shell_backend import RESET, ShellBackend, fabric

BOARD = find_board(os.environ.get("BOARD", "pynq-z2"))  # pytest imports this module as well
BEATS = int(os.environ.get("BEATS", "0"))  # to be moved at least
READS = 6  # of a third of what was written, on average
TOP = fabric(BOARD)


async def begin(dut, pattern):
    await start(dut, TOP)
    backend = ShellBackend(dut, TOP, pattern)
    await backend.begin()
    return backend


def streams(b, rng):
    """Tables and LOOKUPs, then block I/O that keeps both memory ports busy: the rest of the namespace is written, and
    stretches of it are read again and again."""
    size = b.config.lba_bytes

    def program(device):
        lookup_program(b.config, rng)(device)
        free = range(max(e.lba + e.pages for spec in device.tables.values() for e in spec.extents), b.config.lbas)
        content = rng.randbytes(len(free) * size)
        device.write(free.start, content)
        for _ in range(READS):
            first, last = sorted(rng.sample(range(len(free)), 2))
            assert device.read(free.start + first, last - first) == content[first * size : last * size]
    return program


@cocotb.test(timeout_time=2000, timeout_unit="ms")
@cocotb.parametrize(pattern=["bursts"])
async def store_and_look_up(dut, pattern):
    """The host library through registers, interrupt and both memories of the shell."""
    b, rng = await begin(dut, pattern), random.Random(1)
    await run_host_program(b, lookup_program(b.config, rng))
    while b.beats < BEATS:
        await b.reset_device()
        b.dram.write(b.dram_base, bytes(b.config.layout.end))
        await run_host_program(b, streams(b, rng))
        dut._log.info(f"{b.beats:,} beats over the memory ports in {b.cycles:,} cycles")
    await b.finish()
    for monitor in (b.ports["host"].ours, b.ports["dram"].ours):
        assert {(a.burst, 1 << a.size) for _, a in monitor.bursts} == {(1, monitor.data_bytes)}  # INCR of full width alone
        longest = max(a.len + 1 for _, a in monitor.bursts)
        assert longest == min(BOARD.ps.max_burst, b.config.flash.page_bytes // monitor.data_bytes)


@cocotb.test(timeout_time=200, timeout_unit="ms")
async def a_reset_in_the_middle_of_bursts(dut):
    """Whatever was under way: the ports stay whole, and the device's next life is as its first."""
    b, rng, under_way = await begin(dut, "bursts"), random.Random(2), set()
    requested: list[bool] = []
    for silent in (("host",), ("dram",), ("host", "dram"), ()):
        requested.clear()

        def program() -> None:
            device = Device(b, timeout=5000)
            try:
                device.write(0, rng.randbytes(4 * b.config.lba_bytes))
                while True:
                    device.read(0, 4)
            except NearflashError:
                assert requested, "it failed before the reset"

        host = cocotb.start_soon(bridge(program)())
        await ClockCycles(dut.clk, rng.randrange(1000, 3000))
        requested.append(True)
        under_way |= await b.reset_device(silent)
        await host
        b._allocator = HostAllocator(0x10000, 1 << 20)
        b.areas.clear()
    assert under_way == {"host", "dram"}  # else this showed little
    b.dram.write(b.dram_base, bytes(b.config.layout.end))
    await run_host_program(b, lookup_program(b.config, rng))
    await b.finish()


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def addresses_without_a_register(dut):
    b = await begin(dut, "random")
    registers, window = b.registers, b.window

    async def responses(address):
        write = (await registers.write(address, bytes(4))).resp
        return (await registers.read(address, 4)).resp, write

    assert await registers.read_dword(window + 2 * BLOCK_BYTES) == SHELL_MAGIC
    assert await registers.read_dword(window + 0x100) == b.config.design_id
    for outside in (window - 4, window + 0x2000, window + 0xFFFC, window + 3 * BLOCK_BYTES, window | 1 << 28, 0):
        assert await responses(outside) == (AxiResp.DECERR, AxiResp.DECERR), hex(outside)
    assert await responses(window + 0x300) == (AxiResp.SLVERR, AxiResp.SLVERR)
    await registers.write_dword(window + RESET, 1)
    assert await responses(window + 0x100) == (AxiResp.SLVERR, AxiResp.SLVERR)  # not there while in reset
    assert await registers.read_dword(window + 2 * BLOCK_BYTES + 8) == b.config.design_id
    await registers.write_dword(window + RESET, 0)
    assert await registers.read_dword(window + 0x100) == b.config.design_id
    await b.finish()
