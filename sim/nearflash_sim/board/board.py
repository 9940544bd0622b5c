"""The board: fabric, memory, clocks, and what the processors reach of them."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from nearflash.contract import DeviceConfig, DeviceTimeout
from nearflash.contract.boards import Board, find_board
from nearflash.contract.processing import ProcessingSystem
from nearflash.contract.shell import board_config

from ..verilated import Library, Misuse, RegisterError, VerilatedDevice, build_library, cached_verilog
from . import errors
from .memory import DdrMemory
from .ps_registers import PsRegisters
from .time import LONGEST, MMIO_CYCLES, SYNC_CYCLES

__all__ = ["VirtualBoard", "build_fabric"]

DECERR = 3
TOLERANCE = 0.01  # of the fabric's clock: what dividers of a crystal of 33.333 MHz miss is a ten-thousandth


def build_fabric(config: DeviceConfig, board: Board, *, gated: bool = True) -> Library:
    """Generate and compile the shell around the device of ``config`` for ``board`` (cached by content)."""
    from nearflash_hw.boards.shell import FABRIC, fabric_verilog

    config = replace(config, name="", mlp=replace(config.mlp, primitive="inferred"))  # as design_id: they change nothing
    verilog = cached_verilog(f"fabric {board.name} {config!r} gated={gated}",
                             lambda: fabric_verilog(config, board, model=True, gated=gated))
    return build_library(verilog, FABRIC)


class VirtualBoard:
    """A board of PYNQ by its name here (``pynq-z2``), with nothing in its fabric.

    ``tag``: boards of one name and different tags are different boards. Raises :class:`~.errors.BoardInUse` if another
    process has it. ``latency``: of its memory, in cycles of the fabric.
    """

    def __init__(self, name: str, tag: str = "", latency: int = 60):
        self.board = find_board(name)
        if self.board.ps is None:
            raise errors.ForeignOverlay(f"board = {name!r}: has no processing system, so there is no PYNQ for it")
        self.ps: ProcessingSystem = self.board.ps
        self._lock = _lock(self.board.name, tag)
        self._turn = threading.RLock()  # threads of one program reach a board at once; a model takes one at a time
        self.latency = latency
        self.registers = PsRegisters(self.ps)
        self.config: DeviceConfig | None = None
        self._device: VerilatedDevice | None = None
        # Linux and programs have the first quarter. Of two parts the upper is used first: it finds truncated addresses.
        (base, size), *others = self.board.memory()
        self.memory = DdrMemory(self, [(base + size // 4, size - size // 4), *others])
        self._cycles_before = 0
        self._deferred: errors.BoardError | None = None

    # -- life -----------------------------------------------------------------------------------------------------
    def program(self, config: DeviceConfig) -> None:
        """Put the design of ``config`` into the fabric. Buffers stay, with their contents."""
        config = board_config(config, self.board)
        self._check_clock(config)
        library = build_fabric(config, self.board)
        old, new = self._device, VerilatedDevice(library, host_latency=self.latency, dram_latency=self.latency)
        new.reset()
        self.memory.move(old, new)
        if old is not None:
            self._cycles_before += old.cycles
            old.close()
        self._device, self.config = new, config

    def close(self) -> None:
        """Give the board back. Safe to call twice. Raises :class:`~.errors.LeakedBuffers`."""
        left = list(self.memory.regions.values())
        for region in left:
            self.memory.free(region)
        if self._device is not None:
            self._device.close()
            self._device = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if left:
            raise errors.LeakedBuffers(f"{len(left)} buffers, {sum(r.nbytes for r in left)} bytes, were never freed; the "
                                       f"first is {left[0].nbytes} bytes at {left[0].address:#x}")

    @property
    def device(self) -> VerilatedDevice:
        """What is in the fabric. Raises :class:`~.errors.AllocateBeforeDownload` for nothing."""
        if self._device is None:
            raise errors.AllocateBeforeDownload("no overlay has been downloaded: on a board the memory's ports, and so its "
                                                "buffers, come with one")
        return self._device

    # -- registers --------------------------------------------------------------------------------------------------
    def read32(self, address: int) -> int:
        """The word at physical ``address``."""
        if address in self.registers:
            return self.registers.read(address)
        return self._access("read", address, lambda d: d.read_register(address))

    def write32(self, address: int, value: int) -> None:
        """Write the word at physical ``address``."""
        if address in self.registers:
            self.registers.write(address, value)
            return
        self._access("write", address, lambda d: d.write_register(address, value))

    def _access(self, what, address: int, act):
        base, size = self.ps.window, self.ps.window_bytes
        if not base <= address < base + size:
            raise errors.UnmappedAddress(f"{what} of {address:#x}: {self.ps.master}'s window is "
                                         f"{base:#x} to {base + size - 1:#x}")
        if self._device is None:
            raise errors.BusHang(f"{what} of {address:#x}: nothing is in the fabric to answer; download an overlay first")
        self._running(f"{what} of {address:#x}")
        try:
            with self._turn:
                result = act(self._device)
                self._device.step(MMIO_CYCLES)
        except RegisterError as e:
            kind = errors.UnmappedAddress if e.response == DECERR else errors.RegisterRefused
            why = ("no block is there" if e.response == DECERR else
                   "the block has no such register, or takes it only as a whole word")
            raise kind(f"{what} of {address:#x} was answered with an error: {why}") from None
        except DeviceTimeout as e:
            raise errors.BusHang(f"{what} of {address:#x}: {e}") from None
        self._report()
        return result

    # -- time ---------------------------------------------------------------------------------------------------------
    @property
    def cycles(self) -> int:
        """Of the fabric's clock, over all designs since the board was made."""
        return self._cycles_before + (self._device.cycles if self._device else 0)

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of the fabric's clock pass (:data:`~.time.LONGEST` cycles at most)."""
        cycles = min(LONGEST, round(seconds * self.registers.fabric_mhz * 1e6))
        if self._device is not None and cycles:
            with self._turn:
                self._device.step(cycles)
            self._report()

    def synchronised(self) -> None:
        """Let the time of a cache maintenance pass."""
        with self._turn:
            self.device.step(SYNC_CYCLES)
        self._report()

    def run_until_irq(self, max_cycles: int) -> bool:
        """Let time pass until the shell's interrupt is high; False if it stayed low for ``max_cycles``."""
        self._running("wait for the interrupt")
        try:
            with self._turn:
                self.device.run_until_irq(max_cycles)
        except DeviceTimeout:
            return False
        finally:
            self._report()
        return True

    # -- errors ---------------------------------------------------------------------------------------------------------
    def _check_clock(self, config: DeviceConfig) -> None:
        mhz = self.registers.fabric_mhz
        if abs(mhz - config.clock_mhz) > TOLERANCE * config.clock_mhz:
            raise errors.WrongClock(f"the overlay's divisors make {mhz:g} MHz of this board's crystal, its design was "
                                    f"generated for {config.clock_mhz:g} MHz: take the .hwh of `nearflash build` for this "
                                    "board")

    def _running(self, what: str) -> None:
        mhz, wanted = self.registers.fabric_mhz, self.config.clock_mhz if self.config else 0.0
        if not mhz:
            raise errors.BusHang(f"{what}: the fabric's clock stands still, so nothing would ever answer")
        if mhz > wanted * (1 + TOLERANCE):
            raise errors.Overclocked(f"{what}: the fabric's clock was set to {mhz:g} MHz, the design closes timing at "
                                     f"{wanted:g} MHz")

    def defer(self, error: errors.BoardError) -> None:
        """Raise ``error`` from the program's next access, where it can't be raised from what found it."""
        self._deferred = error

    def _report(self) -> None:
        if self._deferred is not None:
            error, self._deferred = self._deferred, None
            raise error
        for v in self.device.take_violations():
            if v.kind is Misuse.OUTSIDE:
                raise self.memory.explain(v.address, v.write, v.cycle)
            raise errors.MissingFlush(f"the device read address {v.address:#x} in cycle {v.cycle}, where the processor's "
                                      "copy is newer: flush the buffer (sync_to_device) before the device starts")


def _lock(name: str, tag: str) -> int:
    path = Path(tempfile.gettempdir()) / f"nearflash-board-{os.getuid()}-{name}{'-' if tag else ''}{tag}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 32).decode() or "another process"
        os.close(handle)
        raise errors.BoardInUse(f"board {name!r} is in use by process {holder}: a board runs one program's overlay at a "
                                f"time; a second virtual one: NEARFLASH_BOARD=sim:{name}/2") from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle
