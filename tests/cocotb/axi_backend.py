"""The host library on a device under cocotb: registers through cocotbext-axi's AXI4-Lite master, host memory in AxiRam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge, SimTimeoutError, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiRam
from nearflash.contract import DeviceConfig
from nearflash.runtime import Backend, Device, HostAllocator
from nearflash_sim.bench.cocotb import PERIOD_NS
from verbs import Pauses

__all__ = ["AxiBackend", "run_host_program"]

HOST_BASE, HOST_BYTES = 0x10000, 1 << 20
TIMEOUT = 20_000  # cycles of one wait


class AxiBackend(Backend):
    """Its methods block, so they run in a thread of :func:`cocotb.task.bridge`; time passes while one waits."""

    master, bus = AxiLiteMaster, AxiLiteBus
    window = 0  #: address of the first register

    def __init__(self, config: DeviceConfig, dut: Any, host: AxiRam, pattern: str):
        self.config, self.dut, self.host = config, dut, host
        self._allocator = HostAllocator(HOST_BASE, HOST_BYTES)
        self.registers = self.master(self.bus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.pauses = Pauses(dut.clk, pattern)
        self.pauses.add("s_axi", self.registers)

    @resume
    async def mmio_read32(self, offset: int) -> int:
        return await self.registers.read_dword(self.window + offset)

    @resume
    async def mmio_write32(self, offset: int, value: int) -> None:
        await self.registers.write_dword(self.window + offset, value)

    def host_alloc(self, nbytes: int) -> int:
        return self._allocator.alloc(nbytes)

    def host_free(self, address: int) -> None:
        self._allocator.free(address)

    def host_read(self, address: int, nbytes: int) -> bytes:
        return bytes(self.host.read(address, nbytes))

    def host_write(self, address: int, content: bytes) -> None:
        self.host.write(address, content)

    @resume
    async def wait_irq(self, timeout: int) -> bool:
        if not int(self.dut.irq.value):
            try:
                await with_timeout(RisingEdge(self.dut.irq), timeout * PERIOD_NS, "ns")
            except SimTimeoutError:
                return False
        return True

    @resume
    async def idle(self, cycles: int) -> None:
        await ClockCycles(self.dut.clk, cycles)

    @property
    def cycles(self) -> int:
        return int(get_sim_time("ns")) // PERIOD_NS

    @property
    def leaked(self) -> int:
        """Bytes of host memory still allocated."""
        return self._allocator.used

    def close(self) -> None:
        """Nothing of ours outlives the simulation."""


async def run_host_program(backend: AxiBackend, program: Callable[[Device], None]) -> None:
    """Open the device, run ``program`` on it as a host would, close it."""
    def run() -> None:
        with Device(backend, timeout=TIMEOUT) as device:
            program(device)

    await bridge(run)()
    assert backend.leaked == 0, "host memory not released"
