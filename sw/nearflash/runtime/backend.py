"""What the driver needs of a device, whatever carries it: simulation, board, or a software model.

Time is counted in cycles of the device clock everywhere; a board converts with ``config.clock_mhz``. Addresses are the
ones the device uses (physical, or simulated). Back ends are found by entry point, group ``nearflash.backends``.
"""

from __future__ import annotations

import abc
import asyncio
from bisect import insort
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Any

from ..contract import DataError, DeviceConfig, NearflashError
from ..contract.nvme import HOST_PAGE

__all__ = ["Backend", "HostAllocator", "backend_class", "open_backend"]

GROUP = "nearflash.backends"
SLICE = 20_000  # cycles that an asynchronous wait takes at once


class Backend(abc.ABC):
    """One device and the memories around it."""

    config: DeviceConfig

    @abc.abstractmethod
    def mmio_read32(self, offset: int) -> int:
        """Read the register at byte ``offset``."""

    @abc.abstractmethod
    def mmio_write32(self, offset: int, value: int) -> None:
        """Write the register at byte ``offset``."""

    @abc.abstractmethod
    def host_alloc(self, nbytes: int) -> int:
        """Address of ``nbytes`` of host memory: 4 KiB-aligned, physically contiguous, DMA-able."""

    @abc.abstractmethod
    def host_free(self, address: int) -> None:
        """Give back what :meth:`host_alloc` returned."""

    @abc.abstractmethod
    def host_read(self, address: int, nbytes: int) -> bytes:
        """Bytes of host memory as the device left them."""

    @abc.abstractmethod
    def host_write(self, address: int, content: bytes) -> None:
        """Put bytes where the device will read them."""

    @abc.abstractmethod
    def wait_irq(self, timeout: int) -> bool:
        """Let at most ``timeout`` cycles pass until the interrupt is high (at once if it is); False if it stayed low."""

    @abc.abstractmethod
    def idle(self, cycles: int) -> None:
        """Let about ``cycles`` cycles pass (at least 1)."""

    async def wait_irq_async(self, timeout: int) -> bool:
        """As :meth:`wait_irq`; other tasks of the event loop run meanwhile."""
        for left in range(timeout, 0, -SLICE):
            if self.wait_irq(min(left, SLICE)):
                return True
            await asyncio.sleep(0)
        return False

    def describe(self) -> str:
        """What is known of the way to the device, for the message of a wait that was given up; may be empty."""
        return ""

    @property
    @abc.abstractmethod
    def cycles(self) -> int:
        """Device clock cycles since some fixed moment."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything. Safe to call twice."""

    def reset(self) -> None:
        """Hold the device's reset for a while: it is as after power-up, the memories around it are as they were."""
        raise NotImplementedError(f"{type(self).__name__} cannot reset the device")

    def waves(self, path: str) -> AbstractContextManager[Any]:
        """Record waveforms to ``path`` while the context is open (simulators only)."""
        raise NotImplementedError(f"{type(self).__name__} cannot record waveforms")

    def timeline(self) -> AbstractContextManager[Any]:
        """Record what the idle device does while the context is open (simulators only). Enters to a function that gives the
        :class:`~nearflash.timeline.Slice` list so far, in cycles from the given one of :attr:`cycles` on."""
        raise NotImplementedError(f"{type(self).__name__} cannot record a timeline")

    #: Where the device's DRAM begins, as its AXI port addresses it: 4 KiB-aligned, written to the device before it starts.
    dram_base: int = 0

    #: True when the device's DRAM can be read and written past the device (simulation, boards with shared memory).
    has_backdoor: bool = False

    def dram_read(self, address: int, nbytes: int) -> bytes:
        """Bytes of the device's DRAM, past the device; addresses from its beginning."""
        raise NotImplementedError(f"{type(self).__name__} has no back door to the device's DRAM")

    def dram_write(self, address: int, content: bytes) -> None:
        """Write the device's DRAM, past the device. Only while it is disabled."""
        raise NotImplementedError(f"{type(self).__name__} has no back door to the device's DRAM")


class HostAllocator:
    """First-fit allocator of page-aligned address ranges, for back ends that own a plain stretch of memory."""

    def __init__(self, base: int, size: int):
        if base % HOST_PAGE or size < HOST_PAGE:
            raise DataError("base", (base, size), f"must be a {HOST_PAGE}-aligned base and at least one page")
        self._free = [(base, size // HOST_PAGE * HOST_PAGE)]
        self._used: dict[int, int] = {}

    def alloc(self, nbytes: int) -> int:
        """Address of a new range of at least ``nbytes``."""
        need = max(1, -(-nbytes // HOST_PAGE)) * HOST_PAGE
        for i, (address, size) in enumerate(self._free):
            if size >= need:
                self._free[i : i + 1] = [(address + need, size - need)] if size > need else []
                self._used[address] = need
                return address
        raise NearflashError(f"host memory exhausted: {need} bytes wanted, largest free range "
                             f"{max((s for _, s in self._free), default=0)}")

    def free(self, address: int) -> None:
        """Return a range; neighbouring free ranges are joined."""
        if address not in self._used:
            raise NearflashError(f"address {address:#x} was not allocated")
        insort(self._free, (address, self._used.pop(address)))
        joined: list[tuple[int, int]] = []
        for a, n in self._free:
            if joined and sum(joined[-1]) == a:
                joined[-1] = (joined[-1][0], joined[-1][1] + n)
            else:
                joined.append((a, n))
        self._free = joined

    @property
    def used(self) -> int:
        """Bytes allocated."""
        return sum(self._used.values())


def backend_class(name: str) -> Any:
    """The class of the back end registered as ``name``. Raises :class:`NearflashError` without one."""
    found = {e.name: e for e in entry_points(group=GROUP)}
    if name not in found:
        raise NearflashError(f"no back end named {name!r}: installed are {sorted(found)}")
    return found[name].load()


def open_backend(name: str, **kw: Any) -> Backend:
    """The back end registered as ``name``, constructed with keyword arguments ``kw`` (``config`` and its own)."""
    return backend_class(name)(**kw)
