"""A whole fabric behind its processing system's ports: the host library through the shell, memories with guards around what
may be written, two monitors on every port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cocotb
from axi_backend import HOST_BASE, HOST_BYTES, AxiBackend
from cocotb.task import resume
from cocotb.triggers import ClockCycles, RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import AxiBus, AxiMaster, axi_channels
from nearflash.contract.boards import Board
from nearflash.contract.shell import BLOCK_BYTES, INTC_REGISTERS, board_config
from nearflash_hw.boards.fabric import Fabric
from nearflash_sim.bench.cocotb import PERIOD_NS
from nearflash_sim.models.axi_monitor import Address, AxiMonitor
from tops import CONFIG
from verbs import attach_ram

__all__ = ["BOARDS", "DRAM_BASE", "GUARD", "ShellBackend", "fabric"]

#: Both kinds of shell: AXI3 through a width converter, AXI4 without one.
BOARDS = {"pynq-z2": 16, "zcu104": 8}  # bytes of the device's data bus
DRAM_BASE = 0x3_0000
GUARD = 0x5A
MARGIN = 1 << 16  # guarded bytes after the device's DRAM
IAR, MER, IER = (BLOCK_BYTES + next(r.offset for r in INTC_REGISTERS if r.name == n) for n in ("IAR", "MER", "IER"))
RESET, STATUS = 2 * BLOCK_BYTES + 0x0C, 2 * BLOCK_BYTES + 0x10
RESET_CYCLES = 20_000  # cap on the end of what is under way


def fabric(board: Board) -> Fabric:
    beat = BOARDS[board.name]
    config = replace(CONFIG, beat_bytes=beat, clock_mhz=board.ps.clock_below(CONFIG.clock_mhz),
                     lookup=replace(CONFIG.lookup, lanes=max(CONFIG.lookup.lanes, beat // 4)))
    return Fabric(board_config(config, board), board)


def speak_axi3() -> None:
    """Lets cocotbext-axi, which refuses ports of other widths than AXI4's, take AXI3's for the rest of the process. What it
    sends are short enough bursts; WID it neither drives nor sees."""
    for ch in ("AW", "AR"):
        for kind in ("Source", "Sink", "Monitor"):
            cls = getattr(axi_channels, f"Axi{ch}{kind}")
            cls._signal_widths = cls._signal_widths | {f"{ch.lower()}len": 4, f"{ch.lower()}lock": 2}


class Watched:
    """Both monitors on the port ``name``: every address that one sees, the other sees too."""

    def __init__(self, dut: Any, name: str, data_bytes: int, axi3: bool, writable: Callable[[int, int], bool]):
        self.dut, self.name = dut, name
        self.ours = AxiMonitor(data_bytes, axi3, name, writable)
        self.theirs = [getattr(axi_channels, f"Axi{ch}Monitor")(
            getattr(axi_channels, f"Axi{ch}Bus").from_prefix(dut, name), dut.clk, dut.rst) for ch in ("AR", "AW")]
        self.signals = {f"{ch}{n}": getattr(dut, f"{name}_{ch}{n}") for ch, names in self.ours.channels.items()
                        for n in (*names, "valid", "ready")}
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        edge, signals, cycle = RisingEdge(self.dut.clk), self.signals, self.ours.cycle

        def sample(name: str) -> int:
            return int(signals[name].value)

        while True:
            await edge
            cycle(sample)

    def check(self) -> None:
        """Nothing is under way, and both saw the same."""
        assert self.ours.idle
        for ch, monitor in zip(("ar", "aw"), self.theirs, strict=True):
            seen = []
            while not monitor.empty():
                t = monitor.recv_nowait()
                seen.append(Address(*(int(getattr(t, ch + f)) for f in Address._fields)))
            assert seen == [a for c, a in self.ours.bursts if c == ch]


class ShellBackend(AxiBackend):
    """Registers through the shell, the interrupt through its controller, reset through its own registers. :meth:`begin`
    first, :meth:`finish` last."""

    master, bus = AxiMaster, AxiBus

    def __init__(self, dut: Any, top: Fabric, pattern: str):
        config, ps = top.config, top.ps
        if ps.axi == 3:
            speak_axi3()
        self.window, self.dram_base = ps.window, DRAM_BASE
        self.areas: dict[int, int] = {}  # of host memory, that the device may write
        end = DRAM_BASE + config.layout.end
        self.dram = attach_ram(dut, "m_axi_dram", end + MARGIN)
        super().__init__(config, dut, attach_ram(dut, "m_axi_host", HOST_BASE + HOST_BYTES + MARGIN), pattern)
        self.pauses.add("m_axi_host", self.host)
        self.pauses.add("m_axi_dram", self.dram)
        self.guards = [(self.host, 0, HOST_BASE), (self.host, HOST_BASE + HOST_BYTES, MARGIN), (self.dram, 0, DRAM_BASE),
                       (self.dram, end, MARGIN)]
        for ram, at, n in self.guards:
            ram.write(at, bytes([GUARD]) * n)
        width = ps.slave_bits(config.beat_bytes) // 8
        self.ports = {
            "s_axi": Watched(dut, "s_axi", 4, False, lambda at, n: True),
            "host": Watched(dut, "m_axi_host", width, ps.axi == 3, self._in_an_area),
            "dram": Watched(dut, "m_axi_dram", width, ps.axi == 3, lambda at, n: at >= DRAM_BASE and at + n <= end)}

    def _in_an_area(self, at: int, n: int) -> bool:
        return any(base <= at and at + n <= base + size for base, size in self.areas.items())

    def host_alloc(self, nbytes: int) -> int:
        address = super().host_alloc(nbytes)
        self.areas[address] = nbytes
        return address

    def host_free(self, address: int) -> None:
        super().host_free(address)
        del self.areas[address]

    async def begin(self) -> None:
        await self.registers.write_dword(self.window + MER, 3)
        await self.registers.write_dword(self.window + IER, 1)

    @resume
    async def wait_irq(self, timeout: int) -> bool:
        await self.registers.write_dword(self.window + IAR, 1)  # the controller keeps one that is over
        if not int(self.dut.irq.value):
            try:
                await with_timeout(RisingEdge(self.dut.irq), timeout * PERIOD_NS, "ns")
            except SimTimeoutError:
                return False
        return True

    async def reset_device(self, silent: tuple[str, ...] = ()) -> set[str]:
        """Reset the device as a driver does, while the ``silent`` of "host" and "dram" answer nothing and one of them owes
        an answer; returns on which of the two ports bursts were under way."""
        write, read = self.registers.write_dword, self.registers.read_dword
        rams = [{"host": self.host, "dram": self.dram}[name] for name in silent]
        answers = [ch for ram in rams for ch in (ram.read_if.r_channel, ram.write_if.b_channel)]
        self.pauses.held |= set(answers)
        await ClockCycles(self.dut.clk, 1)
        for _ in range(RESET_CYCLES // 10):
            if not silent or any(not self.ports[name].ours.idle for name in silent):
                break
            await ClockCycles(self.dut.clk, 10)
        await write(self.window + RESET, 1)
        status = await read(self.window + STATUS)
        under_way = {name for name in ("host", "dram") if not self.ports[name].ours.idle}
        if silent:  # else what was under way may have ended in between
            assert status == int(not under_way) | ("host" in under_way) << 1 | ("dram" in under_way) << 2
        self.pauses.held.clear()
        for _ in range(RESET_CYCLES // 10):
            if status & 1:
                break
            await ClockCycles(self.dut.clk, 10)
            status = await read(self.window + STATUS)
        assert status == 1
        await write(self.window + RESET, 0)
        return under_way

    @property
    def beats(self) -> int:
        """Of data, over both memory ports."""
        return sum(sum(self.ports[name].ours.beats.values()) for name in ("host", "dram"))

    async def finish(self) -> None:
        """Everything ended, both monitors saw the same, no guard was touched."""
        await self.registers.write_dword(self.window + IAR, 1)
        await ClockCycles(self.dut.clk, 200)
        for port in self.ports.values():
            port.check()
        for ram, at, n in self.guards:
            assert ram.read(at, n) == bytes([GUARD]) * n
        assert not int(self.dut.irq.value)
