"""The board as a ``pynq.Device``: what stock PYNQ's ``Overlay``, ``MMIO``, ``allocate`` and ``Clocks`` ask of one.

Written against pynq 3.0.1, 3.1.2 and 4.0.0. Importing this module registers the device with PYNQ (its metaclass does), at a
priority before every real one.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pynq.ps
from nearflash.contract import DeviceConfig
from pynq.buffer import PynqBuffer
from pynq.pl_server.device import Device
from pynqmetadata.frontends import Metadata

from . import errors, time
from .board import VirtualBoard
from .interrupts import SimUio
from .memory import Region
from .overlay import read_overlay

try:  # 4.0
    from pynqmetadata.views.runtime import RuntimeMetadataParser
except ImportError:
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser

__all__ = ["ENVIRONMENT", "SimBuffer", "SimDevice"]

ENVIRONMENT = "NEARFLASH_BOARD"


class SimBuffer(PynqBuffer):
    """A buffer that raises :class:`~.errors.MissingInvalidate` when its stale contents are read, as far as NumPy tells."""

    _memory: Any = None  # of the buffer and its slices: (DdrMemory, Region)

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self._memory = getattr(obj, "_memory", None)
        self.freed = True  # PYNQ unmaps what isn't; ours is freed by its region's owner alone
        if self._memory is not None:
            region: Region = self._memory[1]
            inside = _address(region.shadow) <= _address(self) <= _address(region.shadow) + region.nbytes
            if not inside:  # computed from a buffer: stock PYNQ gives it an address all the same
                self._memory = None

    def _fresh(self) -> None:
        if self._memory is None or not self.nbytes:
            return
        memory, region = self._memory
        if region.address in memory.regions:
            offset = _address(self) - _address(region.shadow)
            span = self.nbytes if self.flags.c_contiguous else region.nbytes - offset
            if memory.stale(region, offset, span):
                raise errors.MissingInvalidate(
                    f"bytes {offset} to {offset + span} of the buffer at {region.address:#x} were read after the device "
                    "wrote there: invalidate it (sync_from_device) first")

    # What reads elements. Slices read nothing yet.
    def __getitem__(self, key: Any) -> Any:
        out = super().__getitem__(key)
        if not isinstance(out, SimBuffer):
            self._fresh()
        return out

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _all_fresh(inputs)
        plain = [np.asarray(x) if isinstance(x, SimBuffer) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(np.asarray(x) if isinstance(x, SimBuffer) else x for x in kwargs["out"])
        out = getattr(ufunc, method)(*plain, **kwargs)
        # Stock PYNQ gives back a buffer, which is none.
        return out.view(SimBuffer) if type(out) is np.ndarray and "out" not in kwargs else out

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        _all_fresh(args)
        return super().__array_function__(func, types, args, kwargs)

    def tobytes(self, *args: Any) -> bytes:
        self._fresh()
        return super().tobytes(*args)

    def tolist(self) -> Any:
        self._fresh()
        return super().tolist()

    def copy(self, *args: Any) -> np.ndarray:
        self._fresh()
        return np.asarray(self).copy(*args)

    def __iter__(self) -> Any:
        self._fresh()
        return iter(np.asarray(self))

    def __repr__(self) -> str:
        self._fresh()
        return super().__repr__()

    # -- synchronisation --------------------------------------------------------------------------------------------
    def flush(self) -> None:
        self._contiguous("flush")
        super().flush()

    def invalidate(self) -> None:
        self._contiguous("invalidate")
        super().invalidate()

    def _contiguous(self, what: str) -> None:
        if self._memory is None:
            raise errors.BogusBuffer(f"{what} of an array of shape {self.shape} that was computed from a buffer and is "
                                     "none: its device_address means nothing")
        if not self.flags.c_contiguous:
            raise errors.StridedBuffer(f"{what} of a slice with gaps (shape {self.shape}, strides {self.strides}): PYNQ "
                                       f"would synchronise its first {self.nbytes} bytes; synchronise the whole buffer")

    def freebuffer(self) -> None:
        """Free the memory, whoever else uses it."""
        if self._memory is not None and self.base is self._memory[1].shadow:
            memory, region = self._memory
            memory.free(region)

    def __del__(self) -> None:
        if getattr(self, "_owner", False):
            self.freebuffer()


def _all_fresh(values: Any) -> None:
    """Of the buffers among ``values``, however deep in lists."""
    if isinstance(values, SimBuffer):
        values._fresh()
    elif isinstance(values, (list, tuple)):
        for v in values:
            _all_fresh(v)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


class SimMemory:
    """A memory bank, as ``ol.PSDDR``."""

    def __init__(self, device: SimDevice, size: int):
        self.device, self.size, self.base_address, self.idx = device, size, 0, 0

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> SimBuffer:
        """A buffer of zeros. ``cacheable`` and others of stock PYNQ's arguments are accepted, and change nothing: a cache is
        always between, so what works here works with either kind."""
        n = int(np.prod(shape)) * np.dtype(dtype).itemsize
        region = self.device.board.memory.allocate(n)
        out = SimBuffer(shape, dtype, buffer=region.shadow, device=self.device, device_address=region.address, bo=region,
                        coherent=False)
        out._memory, out._owner, out.memory, out.freed = (self.device.board.memory, region), True, self, True
        return out


class SimDevice(Device):
    """The board that :data:`ENVIRONMENT` names: ``sim:<board>``, or ``sim:<board>/<tag>`` for one more of the kind."""

    _probe_priority_ = 10

    @classmethod
    def _probe_(cls) -> list[SimDevice]:
        wanted = os.environ.get(ENVIRONMENT, "")
        kind, _, name = wanted.partition(":")
        if not wanted:
            return []
        if kind != "sim" or not name:
            raise errors.ForeignOverlay(f"{ENVIRONMENT} = {wanted!r}: must be sim:<board>, such as sim:pynq-z2")
        name, _, tag = name.partition("/")
        return [cls(VirtualBoard(name, tag))]

    def __init__(self, board: VirtualBoard):
        super().__init__("sim0")
        self.board = board
        self.name = board.board.pynq_name
        self.arch = board.ps.arch
        self.capabilities = {"MEMORY_MAPPED": True}
        self._next: DeviceConfig | None = None  # of the overlay that was asked about last
        self.timestamp = ""
        self._generation = 0
        time.install(board)
        _clocks(self)
        atexit.register(self._exit)

    # -- overlays ---------------------------------------------------------------------------------------------------
    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> Any:
        if partial:
            raise errors.ForeignOverlay(f"{bitfile_name}: partial bitstreams are not simulated")
        self._next = read_overlay(bitfile_name, self.board.board)
        parser = RuntimeMetadataParser(Metadata(input=Path(bitfile_name).with_suffix(".hwh")))
        size = self.board.board.dram_bytes
        parser.mem_dict["PSDDR"] = {"raw_type": None, "used": 1, "base_address": 0, "size": size, "type": "PSDDR", "idx": 0,
                                    "fullpath": "PSDDR", "addr_range": size, "phys_addr": 0, "state": None}
        return parser

    def download(self, bitstream: Any, parser: Any = None) -> None:
        assert self._next is not None, "Overlay asks for the metadata first"
        self._generation += 1
        self.board.program(self._next)
        SimUio.install(self.board, parser)
        self.post_download(bitstream, parser, self.name)
        self.set_axi_port_width(parser)

    def set_axi_port_width(self, parser: Any) -> None:
        """Stock PYNQ's own, which writes the widths of a PS8's ports."""
        from pynq.pl_server.embedded_device import EmbeddedDevice

        EmbeddedDevice.set_axi_port_width(self, parser)  # type: ignore[arg-type]
        wanted = self.board.ps.slave_bits(self.board.config.beat_bytes) if self.board.config else 0
        if self.board.registers.slave_bits != wanted:
            raise errors.StaleOverlay(f"the .hwh sets the memory ports to {self.board.registers.slave_bits} bits, the "
                                      f"design has {wanted}")

    def gen_cache(self, bitstream: Any, parser: Any = None) -> None:
        """Nothing is cached between processes, unlike on a board, where it is by the .bit alone (PYNQ issue 1652)."""

    def close(self) -> None:
        """The overlay is done with; the board stays this process's."""

    # -- registers and memory ---------------------------------------------------------------------------------------
    def mmap(self, base_addr: int, length: int) -> BusArray:
        return BusArray(self, base_addr, length, self._generation)

    @property
    def default_memory(self) -> SimMemory:
        return SimMemory(self, self.board.board.dram_bytes)

    def get_memory(self, description: Any) -> SimMemory:
        return self.default_memory

    def flush(self, bo: Region, offset: int, vaddr: int, nbytes: int) -> None:
        self.board.memory.flush(bo, offset, nbytes)
        self.board.synchronised()

    def invalidate(self, bo: Region, offset: int, vaddr: int, nbytes: int) -> None:
        self.board.synchronised()  # what the device writes meanwhile is seen
        self.board.memory.invalidate(bo, offset, nbytes)

    def _exit(self) -> None:
        try:
            self.board.close()
        except errors.LeakedBuffers as e:  # at the end of a process nothing can be raised
            print(f"nearflash: LeakedBuffers: {e}", file=sys.stderr)


class BusArray:
    """uint32 words behind a bus: as much of an array as PYNQ's MMIO, RegisterMap and Clocks use."""

    def __init__(self, device: SimDevice, base: int, nbytes: int, generation: int, itemsize: int = 4):
        self._device, self._base, self._nbytes, self._generation = device, base, nbytes, generation
        self._itemsize = itemsize
        self.dtype, self.shape = np.dtype(f"u{itemsize}"), (nbytes // itemsize,)

    def __len__(self) -> int:
        return self.shape[0]

    def _at(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise errors.UnmappedAddress(f"word {index} of the {len(self)} at {self._base:#x}: beyond the block's range")
        address = self._base + index % len(self) * self._itemsize
        if self._generation != self._device._generation and address not in self._device.board.registers:
            raise errors.OverlayReplaced(f"access to {address:#x} through a block of an overlay that another one has "
                                         "replaced; take the block from the new overlay")
        return address

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            where = range(*index.indices(len(self)))
            if where.step == 1:  # a view, through which registers can be written
                return BusArray(self._device, self._base + where.start * self._itemsize, len(where) * self._itemsize,
                                self._generation, self._itemsize)
            return np.array([self[i] for i in where], self.dtype)
        at, board = self._at(int(index)), self._device.board
        return self.dtype.type(sum(board.read32(at + k) << 8 * k for k in range(0, self._itemsize, 4)))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            where = range(*index.indices(len(self)))
            for i, v in zip(where, np.broadcast_to(np.asarray(value), (len(where),)), strict=True):
                self[i] = int(v)
            return
        at, word = self._at(int(index)), int(value) % (1 << 8 * self._itemsize)
        for k in range(0, self._itemsize, 4):
            self._device.board.write32(at + k, word >> 8 * k & 0xFFFF_FFFF)

    def view(self, dtype: Any = None) -> BusArray:
        kind = np.dtype("u4" if dtype is None else dtype)
        if kind not in (np.dtype("u4"), np.dtype("u8")):
            raise TypeError(f"registers as {kind}: must be u4 or u8")
        return BusArray(self._device, self._base, self._nbytes, self._generation, kind.itemsize)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([self[i] for i in range(len(self))], dtype or self.dtype)


def _clocks(device: SimDevice) -> None:
    """``pynq.Clocks`` for the board. 3.0.1 chooses by the processor it runs on; all versions keep what they chose."""
    kind = {"armv7l": pynq.ps._ClocksZynq, "aarch64": pynq.ps._ClocksUltrascale}[device.arch]
    if hasattr(pynq.ps.Clocks, "set_device"):
        pynq.ps.Clocks.set_device(device)
        pynq.ps.Clocks._real_instance = kind(device=device)
        return
    chosen = Device.__dict__.get("_active_device")
    type(Device).active_device.fset(Device, device)  # its registers are those of the active device
    pynq.ps.Clocks._real_instance = kind()
    if chosen is not None:
        type(Device).active_device.fset(Device, chosen)


