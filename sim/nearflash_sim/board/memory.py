"""The board's DDR as programs and the device see it: contiguous buffers, and a cache between.

A buffer has a shadow, which is what the processor reads and writes, and a snapshot of the shadow when it was last
synchronised. Bytes of the shadow that differ from the snapshot are dirty. A flush writes dirty lines to the memory and an
invalidate takes lines from it, as a cache does with the lines it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from nearflash.contract import NearflashError
from nearflash.runtime.backend import HostAllocator

from .errors import BogusBuffer, LostWrite, OutOfMemory, OutsideBuffer, TruncatedAddress, UseAfterFree

if TYPE_CHECKING:
    from ..verilated import VerilatedDevice
    from .board import VirtualBoard

__all__ = ["DdrMemory", "Region"]

LINE = 64  # bytes of a cache line
REMEMBERED = 64  # freed buffers, for messages


@dataclass(eq=False)
class Region:
    """An allocated buffer of ``nbytes`` at physical ``address``."""

    address: int
    nbytes: int
    shadow: np.ndarray = field(repr=False)
    snapshot: np.ndarray = field(repr=False)
    owner: HostAllocator = field(repr=False)

    @property
    def end(self) -> int:
        return self.address + self.nbytes


class DdrMemory:
    """Allocates regions from ``ranges``, (address, bytes) each, the last first, and keeps their caches."""

    def __init__(self, board: VirtualBoard, ranges: list[tuple[int, int]]):
        self._board = board
        self._allocators = [HostAllocator(base, size) for base, size in reversed(ranges)]
        self.regions: dict[int, Region] = {}
        self._freed: list[Region] = []

    def allocate(self, nbytes: int) -> Region:
        """A new region of zeros, 4 KiB-aligned. Raises :class:`OutOfMemory`."""
        address, owner = self._take(max(nbytes, 1))
        size = -(-max(nbytes, 1) // LINE) * LINE
        region = Region(address, nbytes, np.zeros(size, np.uint8), np.zeros(size, np.uint8), owner)
        self.regions[address] = region
        device = self._board.device
        device.dram.fill(address, 0, size)
        device.open_window(address, size, region.shadow)
        return region

    def _take(self, nbytes: int) -> tuple[int, HostAllocator]:
        why = ""
        for allocator in self._allocators:
            try:
                return allocator.alloc(nbytes), allocator
            except NearflashError as e:
                why = str(e)
        raise OutOfMemory(f"{nbytes} bytes of contiguous memory: {why}")

    def free(self, region: Region) -> None:
        """Give a region back. Safe to call twice."""
        if self.regions.pop(region.address, None) is None:
            return
        self._board.device.close_window(region.address)
        region.owner.free(region.address)
        self._freed = [*self._freed[1 - REMEMBERED:], region]

    def move(self, old: VerilatedDevice | None, new: VerilatedDevice) -> None:
        """Tell a ``new`` device of the regions, which keep the contents they had behind the ``old`` one."""
        for region in self.regions.values():
            size = len(region.shadow)
            new.dram.write(region.address, old.dram.read(region.address, size) if old else region.snapshot)
            new.open_window(region.address, size, region.shadow)

    def flush(self, region: Region, offset: int, nbytes: int) -> None:
        """Write the dirty lines of ``nbytes`` from ``offset`` to memory."""
        first, last = self._lines(region, offset, nbytes)
        for a, b in self._dirty(region, first, last):
            self._board.device.dram.write(region.address + a, region.shadow[a:b])
            region.snapshot[a:b] = region.shadow[a:b]
            self._board.device.synchronise_window(region.address + a, b - a)

    def invalidate(self, region: Region, offset: int, nbytes: int) -> None:
        """Take the lines of ``nbytes`` from ``offset`` from memory. Raises :class:`LostWrite` if any is dirty."""
        first, last = self._lines(region, offset, nbytes)
        for a, _ in self._dirty(region, first, last):
            raise LostWrite(f"invalidate of {nbytes} bytes at {region.address + offset:#x}: the line at "
                            f"{region.address + a:#x} was written and not flushed; flush before the device starts, and "
                            "write nothing in between")
        self._board.device.dram.read_into(region.address + first, region.shadow[first:last])
        region.snapshot[first:last] = region.shadow[first:last]
        self._board.device.synchronise_window(region.address + first, last - first)

    def stale(self, region: Region, offset: int, nbytes: int) -> bool:
        """Whether the device wrote any of ``nbytes`` from ``offset`` since they were synchronised."""
        return nbytes > 0 and self._board.device.window_stale(region.address + offset, nbytes)

    def explain(self, address: int, write: bool, cycle: int) -> OutsideBuffer:
        """The error for an access of the device outside every region."""
        what = f"the device {'wrote' if write else 'read'} address {address:#x} in cycle {cycle}"
        for r in self.regions.values():
            low = r.address & 0xFFFF_FFFF
            if low != r.address and low <= address < low + r.nbytes:
                return TruncatedAddress(f"{what}: the low 32 bits of an address in the buffer at {r.address:#x}; write the "
                                        "register of the high word too")
        for r in reversed(self._freed):
            if r.address <= address < r.end:
                return UseAfterFree(f"{what}, in a buffer of {r.nbytes} bytes at {r.address:#x} that was freed; keep it "
                                    "until the device has finished")
        near = min(self.regions.values(), key=lambda r: min(abs(address - r.address), abs(address - r.end)), default=None)
        hint = f"the nearest buffer is {near.nbytes} bytes at {near.address:#x}" if near else "no buffer is allocated"
        return OutsideBuffer(f"{what}, where nobody allocated anything: {hint}")

    @staticmethod
    def _lines(region: Region, offset: int, nbytes: int) -> tuple[int, int]:
        if offset < 0 or offset + nbytes > region.nbytes:
            raise BogusBuffer(f"bytes {offset} to {offset + nbytes} of a buffer of {region.nbytes} bytes at "
                              f"{region.address:#x}: this array was computed from a buffer and is none")
        return offset // LINE * LINE, -(-(offset + nbytes) // LINE) * LINE

    @staticmethod
    def _dirty(region: Region, first: int, last: int) -> list[tuple[int, int]]:
        """Runs of dirty lines, as byte ranges."""
        if first == last:
            return []
        differ = (region.shadow[first:last] != region.snapshot[first:last]).reshape(-1, LINE).any(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], differ, [False])).astype(np.int8)))
        return [(first + int(a) * LINE, first + int(b) * LINE) for a, b in edges.reshape(-1, 2)]
