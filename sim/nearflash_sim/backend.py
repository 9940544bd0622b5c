"""The "sim" back end: the generated device, Verilated, with sparse host memory and DRAM behind its AXI masters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nearflash.contract import ConfigError, DeviceConfig, DeviceTimeout
from nearflash.runtime.backend import Backend, HostAllocator
from nearflash.timeline import Slice
from nearflash_hw.device import Device
from nearflash_hw.verilog import to_verilog

from .verilated import Library, VerilatedDevice, build_library, cached_verilog
from .verilated.build import compile_runtime_beside, trace_kind

__all__ = ["TOP", "SimBackend", "build", "verilog"]

TOP = "nearflash_device"
HOST_BASE, HOST_BYTES = 0x1_0000, 1 << 32  # simulated host memory: away from 0, so a null address shows


def build(config: DeviceConfig, *, trace: bool = False, gated: bool = True, board: bool = False, observed: bool = False
          ) -> Library:
    """Compile the device of ``config`` (cached by content); arguments: see :func:`verilog`."""
    text = verilog(config, trace=trace, gated=gated, board=board, observed=observed)
    return build_library(text, TOP, trace=trace, observed=observed)


def verilog(config: DeviceConfig, *, trace: bool = False, gated: bool = True, board: bool = False, observed: bool = False
            ) -> str:
    """Generate the device of ``config`` for simulation (cached by content). ``board``, and with ``trace``: the board's own
    Verilog, with its reset; else a faster form of it, equal cycle by cycle (``gated``: faster yet, see
    :mod:`nearflash_hw.model`), whose reset is another device. Multipliers are always inferred: instances of a part's
    primitives have no content for a simulator, and differ in nothing else (not even the design_id). ``observed``: the gated
    form, which reports what its parts do; :class:`ConfigError` with any other."""
    if observed and (trace or board or not gated):
        raise ConfigError("observed", observed, "can't be combined with waveforms, the board's form or gated=False")
    config = replace(config, name="", mlp=replace(config.mlp, primitive="inferred"))  # as design_id: names don't matter
    board = board or trace
    form = "board" if board else "observed" if observed else "gated" if gated else "ungated"

    def generate() -> str:
        compile_runtime_beside(trace)
        return to_verilog(Device(config), TOP, model=not board, gated=gated, observed=observed)

    return cached_verilog(f"{TOP} {config!r} {form}", generate)


class SimBackend(Backend):
    """A simulated device. Time passes only in register accesses, :meth:`wait_irq` and :meth:`idle`.

    ``trace``: build with waveforms; see :meth:`waves`. ``gated``, ``board``: see :func:`build`. ``dram_base``: where the
    device's DRAM begins in the memory behind its port. ``host_latency`` and ``dram_latency``: read latency in cycles.
    ``observed``: its timeline can be recorded (:mod:`nearflash_sim.timing.rtl_timeline`).
    """

    has_backdoor = True

    def __init__(self, config: DeviceConfig, *, trace: bool = False, gated: bool = True, board: bool = False,
                 dram_base: int = 0, host_latency: int = 100, dram_latency: int = 30, observed: bool = False):
        self.config = config
        self.library = build(config, trace=trace, gated=gated, board=board, observed=observed)
        self.device = VerilatedDevice(self.library, host_latency=host_latency, dram_latency=dram_latency)
        self.reset()
        self.dram_base = dram_base
        self._allocator = HostAllocator(HOST_BASE, min(HOST_BYTES, (1 << config.bus.address_bits) - HOST_BASE))

    def mmio_read32(self, offset: int) -> int:
        return self.device.read_register(offset)

    def mmio_write32(self, offset: int, value: int) -> None:
        self.device.write_register(offset, value)

    def host_alloc(self, nbytes: int) -> int:
        return self._allocator.alloc(nbytes)

    def host_free(self, address: int) -> None:
        self._allocator.free(address)

    def host_read(self, address: int, nbytes: int) -> bytes:
        return self.device.host.read(address, nbytes)

    def host_write(self, address: int, content: bytes) -> None:
        self.device.host.write(address, content)

    def dram_read(self, address: int, nbytes: int) -> bytes:
        return self.device.dram.read(self.dram_base + address, nbytes)

    def dram_write(self, address: int, content: bytes) -> None:
        self.device.dram.write(self.dram_base + address, content)

    def wait_irq(self, timeout: int) -> bool:
        try:
            self.device.run_until_irq(timeout)
        except DeviceTimeout:
            return False
        return True

    def idle(self, cycles: int) -> None:
        self.device.step(cycles)

    @property
    def cycles(self) -> int:
        return self.device.cycles

    @staticmethod
    def wave_format() -> str:
        """What :meth:`waves` writes on this machine: "fst" or "vcd"."""
        return trace_kind()

    def waves(self, path: str) -> contextlib.AbstractContextManager[Path]:
        """Record waveforms (FST where it can be built, else VCD) while the block runs; needs ``trace=True``."""
        return self.device.trace(path)

    def timeline(self) -> contextlib.AbstractContextManager[Callable[[int], list[Slice]]]:
        """See :func:`nearflash_sim.timing.rtl_timeline.recording`; needs ``observed=True``."""
        from .timing.rtl_timeline import recording  # with the simulator's names, and its compiler

        return recording(self)

    def reset(self) -> None:
        self.device.reset()
        self.reset_cycle = self.device.cycles

    def close(self) -> None:
        self.device.close()
