"""The "pynq" back end: a device in the fabric of a board, reached through stock PYNQ.

Works the same on a real board and on the virtual one. Needs pynq and NumPy.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import ConfigError, DeviceConfig, DeviceTimeout, NearflashError
from ..contract.registers import OFFSETS
from ..contract.shell import DEVICE, SHELL, SHELL_MAGIC, SHELL_VERSION, shell_registers
from ..runtime.backend import Backend, HostAllocator
from .hwh import device_config

__all__ = ["PynqBackend"]

ARENA = 4 << 20  # bytes of host memory allocated at once; more for a larger buffer
WORD = 1 << 32
POLLS = 2  # of the completion register before the first sleep
FIRST_SLEEP, LONGEST_SLEEP = 5e-6, 1e-4  # seconds between two polls
LOOKS = 16  # polls from one look at the device's clock to the next
RESET_SECONDS = 1.0  # for bursts under way to end


class PynqBackend(Backend):
    """``overlay``: a ``pynq.Overlay`` of ``nearflash build``, or the path of its ``.bit``, which is then downloaded.
    ``config``: must be the overlay's, where given.

    Before anything else the design in the fabric is asked who it is. Raises :class:`ConfigError` where it, the overlay's
    hand-off file or ``config`` disagree, and :class:`NearflashError` for an overlay that isn't one of nearflash.
    """

    has_backdoor = True

    def __init__(self, overlay: Any, config: DeviceConfig | None = None):
        import pynq

        if isinstance(overlay, (str, Path)):
            overlay = pynq.Overlay(str(overlay))
        self.overlay = overlay
        for name in (DEVICE, SHELL):
            if name not in overlay.ip_dict:
                raise NearflashError(f"{overlay.bitfile_name}: has no {name}: not an overlay of nearflash build")
        self.config = _config(overlay.ip_dict[DEVICE]["parameters"], overlay.bitfile_name)
        if config is not None and config.design_id != self.config.design_id:
            raise ConfigError("config.design_id", hex(config.design_id), f"the overlay is of another design "
                              f"({self.config.design_id:#x})")
        self.ip, self._shell = getattr(overlay, DEVICE), getattr(overlay, SHELL)
        self._shell_offsets = {r.name: r.offset for r in shell_registers(self.config)}
        self._check_design()
        self._shell.write(self._shell_offsets["reset"], 0)  # of a program that ended in the middle of one
        self._counted, self._before, self._moved = 0, 0, time.monotonic()
        self._arenas: list[tuple[Any, HostAllocator]] = []
        self._dram: Any = None
        try:
            self._dram = pynq.allocate((self.config.layout.end,), np.uint8)
            self.dram_base = int(self._dram.device_address)
            self._add_arena(ARENA)
        except BaseException:
            self.close()
            raise

    def _check_design(self) -> None:
        for name, wanted in (("magic", SHELL_MAGIC), ("version", SHELL_VERSION), ("design_id", self.config.design_id)):
            found = self._shell_read(name)
            if found != wanted:
                raise ConfigError(f"{SHELL}.{name}", hex(found), f"must be {wanted:#x}: the fabric holds another design "
                                                                 "than the .hwh describes; download the overlay again")

    # -- registers --------------------------------------------------------------------------------------------------
    def mmio_read32(self, offset: int) -> int:
        return self.ip.read(offset)

    def mmio_write32(self, offset: int, value: int) -> None:
        self.ip.write(offset, int(value))

    def _shell_read(self, name: str) -> int:
        return self._shell.read(self._shell_offsets[name])

    # -- memory -------------------------------------------------------------------------------------------------------
    def host_alloc(self, nbytes: int) -> int:
        for _, allocator in self._arenas:
            try:
                return allocator.alloc(nbytes)
            except NearflashError:  # full, or too much in pieces
                continue
        self._add_arena(max(ARENA, nbytes))
        return self._arenas[-1][1].alloc(nbytes)

    def _add_arena(self, nbytes: int) -> None:
        import pynq

        nbytes = -(-nbytes // 4096) * 4096
        buffer = pynq.allocate((nbytes,), np.uint8)
        self._arenas.append((buffer, HostAllocator(int(buffer.device_address), nbytes)))

    def host_free(self, address: int) -> None:
        _, allocator = self._arena(address, 1)
        allocator.free(address)

    def _arena(self, address: int, nbytes: int) -> tuple[Any, HostAllocator]:
        for buffer, allocator in self._arenas:
            if buffer.device_address <= address and address + nbytes <= buffer.device_address + buffer.nbytes:
                return buffer, allocator
        raise NearflashError(f"host memory {address:#x} to {address + nbytes:#x}: was not allocated here")

    def host_read(self, address: int, nbytes: int) -> bytes:
        buffer, _ = self._arena(address, nbytes)
        return _read(buffer, address - int(buffer.device_address), nbytes)

    def host_write(self, address: int, content: bytes) -> None:
        buffer, _ = self._arena(address, len(content))
        _write(buffer, address - int(buffer.device_address), content)

    def dram_read(self, address: int, nbytes: int) -> bytes:
        return _read(self._dram, address, nbytes)

    def dram_write(self, address: int, content: bytes) -> None:
        _write(self._dram, address, content)

    # -- time -----------------------------------------------------------------------------------------------------------
    @property
    def cycles(self) -> int:
        """Of the device's own counter, over its resets. While that stands still, wall time at the device's clock: whoever
        waits for a dead device must not wait for ever."""
        self.mmio_write32(OFFSETS["perf_index"], 0)
        count = self.mmio_read32(OFFSETS["perf_lo"]) | self.mmio_read32(OFFSETS["perf_hi"]) << 32
        now = time.monotonic()
        if count == self._counted:
            self._before += round((now - self._moved) * self.config.clock_mhz * 1e6)
        elif count < self._counted:  # a reset
            self._before += self._counted
        self._counted, self._moved = count, now
        return self._before + count

    def wait_irq(self, timeout: int) -> bool:
        start = self.cycles if timeout else 0
        for n, pause in enumerate(_pauses()):
            if self._posted():
                return True
            if not timeout or (n % LOOKS == LOOKS - 1 and self.cycles - start >= timeout):
                return False
            if pause:
                time.sleep(min(pause, timeout / (self.config.clock_mhz * 1e6)))
        raise AssertionError("pauses never end")

    async def wait_irq_async(self, timeout: int) -> bool:
        """As :meth:`wait_irq`, on the board's interrupt; other tasks run meanwhile. Without an interrupt in the overlay: by
        polling."""
        irq = getattr(self.ip, "irq", None)
        if self._posted():
            return True
        if irq is None:
            return await super().wait_irq_async(timeout)
        try:
            await asyncio.wait_for(irq.wait(), timeout / (self.config.clock_mhz * 1e6) + 1.0)
        except asyncio.TimeoutError:
            return self._posted()
        self._posted()
        return True

    def _posted(self) -> bool:
        """Whether a completion was posted since the last time this was asked."""
        pending = self.mmio_read32(OFFSETS["irq_pending"])
        if pending:
            self.mmio_write32(OFFSETS["irq_pending"], pending)
        return bool(pending)

    def idle(self, cycles: int) -> None:
        time.sleep(max(cycles, 1) / (self.config.clock_mhz * 1e6))

    # -- life -------------------------------------------------------------------------------------------------------------
    def describe(self) -> str:
        """What the shell says, for messages."""
        status = self._shell_read("status")
        busy = [name for bit, name in ((1, "host memory"), (2, "the device's DRAM")) if status >> bit & 1]
        return (f"shell: {'device in reset' if status & 1 else 'device running'}, bursts under way to "
                f"{' and '.join(busy) or 'nothing'}")

    def reset(self) -> None:
        """Let the bursts under way end, then hold the device's reset. Raises :class:`DeviceTimeout` where they don't within
        :data:`RESET_SECONDS`: the device is then reset all the same, and its memory ports may need the overlay downloaded
        again."""
        at = self._shell_offsets["reset"]
        self._shell.write(at, 1)
        drained = self._in_reset()
        if not drained:
            self._shell.write(at, 3)
            self._in_reset()
        state = self.describe()
        self._shell.write(at, 0)
        if not drained:
            raise DeviceTimeout(f"reset: bursts under way did not end within {RESET_SECONDS} s ({state}); download the "
                                "overlay again")

    def _in_reset(self) -> bool:
        for _ in range(1000):
            if self._shell_read("status") & 1:
                return True
            time.sleep(RESET_SECONDS / 1000)
        return False

    def close(self) -> None:
        for buffer in [*(b for b, _ in self._arenas), *([] if self._dram is None else [self._dram])]:
            buffer.freebuffer()
        self._arenas, self._dram = [], None


def _config(parameters: dict[str, str], name: str) -> DeviceConfig:
    """Of the device, as the hand-off file carries it."""
    try:
        return device_config(parameters)
    except (KeyError, ValueError) as e:
        raise NearflashError(f"{name}: its .hwh has no configuration that this nearflash reads ({type(e).__name__}: {e}); "
                             "made by another version?") from e


def _pauses():
    """Seconds to sleep after each poll: none at first, then a quarter of what was slept so far, so that a wait is late by
    that much at most."""
    slept = 0.0
    for _ in range(POLLS):
        yield 0.0
    while True:
        pause = min(max(slept / 4, FIRST_SLEEP), LONGEST_SLEEP)
        slept += pause
        yield pause


def _read(buffer: Any, at: int, nbytes: int) -> bytes:
    part = buffer[at : at + nbytes]
    _synchronise(part.invalidate)
    return part.tobytes()


def _write(buffer: Any, at: int, content: bytes) -> None:
    part = buffer[at : at + len(content)]
    part[:] = np.frombuffer(content, np.uint8)
    _synchronise(part.flush)


def _synchronise(act: Any) -> None:
    """Cache maintenance; by itself so that it can be timed apart."""
    act()
