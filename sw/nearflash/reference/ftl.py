"""What the device's DRAM holds after a sequence of writes and trims: the FTL's exact model.

Defines, byte for byte, the page data, out-of-band areas, block states, map and superblock of
:mod:`nearflash.contract.onflash` that the gateware leaves behind once a FLUSH completed. Also the fast way to load
tables in simulation: write them here and copy :meth:`FtlModel.image` into the device's DRAM before it is enabled.

>>> from nearflash.contract import DeviceConfig
>>> m = FtlModel(DeviceConfig.preset("tiny"))
>>> m.write(5, b"x" * 512), m.write(5, b"y" * 512), m.cursor, m.read(5)[:1]
(0, 1, 2, b'y')
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from ..contract.config import DeviceConfig, log2
from ..contract.errors import CommandError, DataError, LimitError
from ..contract.nvme import Status
from ..contract.onflash import SUPERBLOCK_MAGIC, block_state, oob, superblock

__all__ = ["FtlModel"]

_CHUNK_PAGES = 256  # pages joined into one piece of the image


class FtlModel:
    """A log-structured page-map FTL without garbage collection.

    ``read``: the DRAM a device left behind, as a function (address, length) -> bytes; the model continues from it.
    Default: a blank device. Attributes: ``cursor`` (next PPN to program), ``sequence`` (of the next write).
    """

    def __init__(self, config: DeviceConfig, read: Callable[[int, int], bytes] | None = None):
        self.config = config
        f, a = config.flash, config.layout
        self.cursor, self.sequence = 0, 0
        self._backing = read
        self._pages: dict[int, bytes] = {}  # written here, by PPN
        self._oob: dict[int, bytes] = {}
        self._map = np.zeros(config.lbas, "<u4")
        self._map_changed = np.zeros(config.lbas, bool)
        self._states: dict[int, tuple[int, bool, int]] = {}  # changed here: next page, erased, erase count
        if read:
            magic, cursor, sequence = struct.unpack("<IIQ", read(a.superblock, 16))
            if magic == SUPERBLOCK_MAGIC and cursor <= f.total_pages:
                self.cursor, self.sequence = cursor, sequence
            elif magic or cursor or sequence:
                raise DataError("superblock", hex(magic), f"must be {SUPERBLOCK_MAGIC:#x} or all zero")
            self._map = np.frombuffer(read(a.map, 4 * config.lbas), "<u4").copy()

    # -- commands -------------------------------------------------------------------------------------------------
    def write(self, lpn: int, content: bytes) -> int:
        """Write one logical block; returns its PPN. Raises :class:`CommandError` when no free page is left."""
        self._check(lpn)
        f = self.config.flash
        if len(content) != f.page_bytes:
            raise LimitError("content", len(content), f"must be {f.page_bytes} bytes")
        if self.cursor == f.total_pages:
            raise CommandError("write", Status.CAPACITY_EXCEEDED)
        ppn = self.cursor
        block, page = self._place(ppn)
        _, erased, count = self.block_state(block)
        if page == 0:
            erased, count = True, count + 1
        self._states[block] = (page + 1, erased, count)
        self._pages[ppn] = bytes(content)
        self._oob[ppn] = oob(lpn, self.sequence, f.oob_bytes)
        self._set_map(lpn, ppn + 1)
        self.cursor += 1
        self.sequence += 1
        return ppn

    def trim(self, lpn: int) -> None:
        """Unmap one logical block: it reads as zeros."""
        self._check(lpn)
        self._set_map(lpn, 0)

    def read(self, lpn: int) -> bytes:
        """The bytes of one logical block, zeros when unmapped."""
        ppn = self.translate(lpn)
        n = self.config.flash.page_bytes
        if ppn is None:
            return bytes(n)
        return self._pages[ppn] if ppn in self._pages else self._dram(self.config.layout.flash + ppn * n, n)

    # -- state ----------------------------------------------------------------------------------------------------
    def translate(self, lpn: int) -> int | None:
        """The PPN of a logical block, None when unmapped or out of range."""
        return int(self._map[lpn]) - 1 if 0 <= lpn < self.config.lbas and self._map[lpn] else None

    def block_state(self, block: int) -> tuple[int, bool, int]:
        """(next page to program, erased since new, erase count) of block number {block, die, channel}."""
        if block not in self._states:
            raw = self._dram(self.config.layout.block_state + block * 8, 8)
            next_page, flags, count = struct.unpack("<HHI", raw)
            return next_page, bool(flags & 1), count
        return self._states[block]

    def image(self) -> Iterator[tuple[int, bytes]]:
        """(DRAM address, bytes) of everything changed here, superblock last, as after a FLUSH."""
        f, a = self.config.flash, self.config.layout
        written = sorted(self._pages)
        for first, last in _runs(np.array(written, np.int64)):
            for at in range(first, last + 1, _CHUNK_PAGES):
                ppns = range(at, min(at + _CHUNK_PAGES, last + 1))
                yield a.flash + at * f.page_bytes, b"".join(self._pages[p] for p in ppns)
                yield a.oob + at * f.oob_bytes, b"".join(self._oob[p] for p in ppns)
        for block, state in sorted(self._states.items()):
            yield a.block_state + block * 8, block_state(*state)
        for first, last in _runs(np.flatnonzero(self._map_changed)):
            yield a.map + first * 4, self._map[first : last + 1].tobytes()
        yield a.superblock, superblock(self.cursor, self.sequence)

    # -- helpers --------------------------------------------------------------------------------------------------
    def _check(self, lpn: int) -> None:
        if not 0 <= lpn < self.config.lbas:
            raise LimitError("lpn", lpn, f"must be from 0 to {self.config.lbas - 1}")

    def _place(self, ppn: int) -> tuple[int, int]:
        """(block number {block, die, channel}, page) of a PPN {block, page, die, channel}."""
        f = self.config.flash
        low = log2(f.channels) + log2(f.channel_planes)
        block, page = ppn >> (low + log2(f.pages)), ppn >> low & (f.pages - 1)
        return block << low | ppn & ((1 << low) - 1), page

    def _set_map(self, lpn: int, entry: int) -> None:
        self._map[lpn] = entry
        self._map_changed[lpn] = True

    def _dram(self, addr: int, n: int) -> bytes:
        return self._backing(addr, n) if self._backing else bytes(n)


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive integers in a sorted array."""
    if not values.size:
        return
    cuts = np.flatnonzero(np.diff(values) != 1)
    starts, ends = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [values.size - 1]])
    for s, e in zip(starts, ends, strict=True):
        yield int(values[s]), int(values[e])
