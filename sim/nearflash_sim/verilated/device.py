"""A compiled device as a Python object."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_int64, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

import numpy as np
from nearflash.contract import DeviceTimeout, NearflashError

from .build import Library

__all__ = ["AxiProtocolError", "Memory", "Misuse", "RegisterError", "Traffic", "VerilatedDevice", "Violation"]

HOST, DRAM = 0, 1
ADDRESS_SPACE = 1 << 40


class AxiProtocolError(NearflashError):
    """The device broke a rule of AXI4 on one of its memory ports; the message has a line per breach."""


class RegisterError(NearflashError):
    """A register access was answered with an AXI error response, ``response``."""

    def __init__(self, message: str, response: int):
        super().__init__(message)
        self.response = response


class Misuse(Enum):
    """What the device did on a board that it must not: access memory outside every window, or read what the processor has
    written to its cache alone."""

    OUTSIDE = 1
    UNFLUSHED = 2


@dataclass(frozen=True)
class Violation:
    """Of a board's memory, at ``address`` in ``cycle``."""

    kind: Misuse
    write: bool
    address: int
    cycle: int


@dataclass(frozen=True)
class Traffic:
    """What crossed a memory port since the device was made."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int


#: Function: (result, arguments after the device handle).
_API = {
    "nf_destroy": (None, ()),
    "nf_reset": (None, (c_uint64,)),
    "nf_step": (None, (c_uint64,)),
    "nf_cycles": (c_uint64, ()),
    "nf_irq": (c_uint32, ()),
    "nf_run_until_irq": (c_int64, (c_uint64,)),
    "nf_run_until_host_word": (c_int64, (c_uint64, c_uint32, c_uint32, c_uint64)),
    "nf_axil_write": (c_int, (c_uint32, c_uint32, c_uint64)),
    "nf_axil_read": (c_int, (c_uint32, POINTER(c_uint32), c_uint64)),
    "nf_memory_read": (None, (c_int, c_uint64, c_void_p, c_uint64)),
    "nf_memory_write": (None, (c_int, c_uint64, c_void_p, c_uint64)),
    "nf_memory_fill": (None, (c_int, c_uint64, c_int, c_uint64)),
    "nf_memory_clear": (None, (c_int,)),
    "nf_memory_bytes": (c_uint64, (c_int,)),
    "nf_memory_timing": (None, (c_int, c_uint64, c_uint64, c_uint32, c_uint32)),
    "nf_memory_fault": (None, (c_int, c_uint64, c_uint64, c_int, c_int, c_int)),
    "nf_memory_clear_faults": (None, (c_int,)),
    "nf_memory_silence": (None, (c_int, c_int)),
    "nf_memory_traffic": (None, (c_int, POINTER(c_uint64))),
    "nf_window_open": (None, (c_uint64, c_uint64, c_void_p)),
    "nf_window_close": (None, (c_uint64,)),
    "nf_window_stale": (c_int, (c_uint64, c_uint64)),
    "nf_window_synchronise": (None, (c_uint64, c_uint64)),
    "nf_take_violations": (c_uint32, (POINTER(c_uint64), c_uint32)),
    "nf_error_count": (c_uint64, ()),
    "nf_error_text": (c_char_p, ()),
    "nf_clear_errors": (None, ()),
    "nf_trace_start": (c_int, (c_char_p,)),
    "nf_trace_stop": (None, ()),
}


def _load(path: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    for name, (result, arguments) in _API.items():
        f = getattr(lib, name)
        f.restype, f.argtypes = result, (c_void_p, *arguments)
    if hasattr(lib, "nf_observe"):
        lib.nf_observe.argtypes, lib.nf_observe.restype = (c_int,), None
        lib.nf_observed_count.restype = c_uint64
        lib.nf_observed_copy.argtypes, lib.nf_observed_copy.restype = (c_void_p,), None
    lib.nf_create.restype = c_void_p
    lib.nf_trace_suffix.restype = c_char_p
    return lib


class Memory:
    """The memory behind one AXI4 port, as the simulation's back door sees it: no cycles pass.

    Sparse: pages nobody wrote read as zero and cost nothing.
    """

    def __init__(self, device: VerilatedDevice, which: int):
        self._device, self._which = device, which

    def read(self, addr: int, n: int) -> bytes:
        """``n`` bytes from ``addr``."""
        self._check(addr, n)
        out = ctypes.create_string_buffer(n)
        self._device._call("nf_memory_read", self._which, addr, out, n)
        return out.raw

    def read_into(self, addr: int, out: np.ndarray) -> None:
        """Fill the C-contiguous array ``out`` with the bytes from ``addr``."""
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError("out must be C-contiguous and writeable")
        self._check(addr, out.nbytes)
        self._device._call("nf_memory_read", self._which, addr, out.ctypes.data, out.nbytes)

    def write(self, addr: int, content: bytes | bytearray | memoryview | np.ndarray) -> None:
        """The bytes of ``content`` to ``addr`` on."""
        raw = np.ascontiguousarray(content) if isinstance(content, np.ndarray) else np.frombuffer(content, np.uint8)
        self._check(addr, raw.nbytes)
        self._device._call("nf_memory_write", self._which, addr, raw.ctypes.data, raw.nbytes)

    def fill(self, addr: int, value: int, n: int) -> None:
        """``n`` bytes of ``value`` from ``addr``."""
        if not 0 <= value < 256:
            raise ValueError(f"value = {value}: must be a byte")
        self._check(addr, n)
        self._device._call("nf_memory_fill", self._which, addr, value, n)

    def clear(self) -> None:
        """All zero again."""
        self._device._call("nf_memory_clear", self._which)

    @property
    def allocated_bytes(self) -> int:
        return self._device._call("nf_memory_bytes", self._which)

    def set_timing(self, read_latency: int = 1, write_latency: int = 1, stall: float = 0.0, seed: int = 1) -> None:
        """Cycles from a burst's address to its first data beat, from its last write word to the answer, and the chance
        that any handshake waits for a cycle."""
        for name, v in (("read_latency", read_latency), ("write_latency", write_latency)):
            if v < 1:
                raise ValueError(f"{name} = {v}: must be at least 1 cycle")
        if not 0 <= stall < 1:
            raise ValueError(f"stall = {stall}: must be at least 0 and below 1")
        self._device._call("nf_memory_timing", self._which, read_latency, write_latency, int(stall * 65536), seed)

    def inject_fault(self, addr: int, n: int, *, read: bool = True, write: bool = True, decode: bool = False
                     ) -> None:
        """Accesses to ``n`` bytes from ``addr`` answer SLVERR, or with ``decode`` DECERR, from now on; refused words are not
        written."""
        self._check(addr, n)
        if n < 1:
            raise ValueError(f"n = {n}: must be at least 1")
        self._device._call("nf_memory_fault", self._which, addr, addr + n - 1, int(read), int(write), int(decode))

    def clear_faults(self) -> None:
        self._device._call("nf_memory_clear_faults", self._which)

    def silence(self, silent: bool = True) -> None:
        """From now on (or no longer): no request, word or answer passes, as on a bus that hangs."""
        self._device._call("nf_memory_silence", self._which, int(silent))

    @property
    def traffic(self) -> Traffic:
        counts = (c_uint64 * 4)()
        self._device._call("nf_memory_traffic", self._which, counts)
        return Traffic(*counts)

    @staticmethod
    def _check(addr: int, n: int) -> None:
        if n < 0 or not 0 <= addr <= ADDRESS_SPACE - n:
            raise ValueError(f"addr = {addr:#x}, n = {n}: must lie within {ADDRESS_SPACE:#x}")


class VerilatedDevice:
    """A device with its host memory (``host``) and DRAM (``dram``), driven cycle by cycle.

    Out of reset when made; both memories outlive :meth:`reset`. Every call that lets cycles pass has a cap and raises
    :class:`AxiProtocolError` if the device broke a bus rule. One thread at a time per device; several devices may run in
    threads at once (the interpreter lock is released while cycles pass).

    ``host_latency`` and ``dram_latency``: read latency in cycles; see :meth:`Memory.set_timing`.
    """

    REGISTER_CYCLES = 10_000  # cap on one register access

    def __init__(self, library: Library | Path | str, *, host_latency: int = 100, dram_latency: int = 30):
        path = library.path if isinstance(library, Library) else Path(library)
        self._lib = _load(path)
        self.observed = library.observed if isinstance(library, Library) else ()
        self._handle: int | None = self._lib.nf_create()
        self.host, self.dram = Memory(self, HOST), Memory(self, DRAM)
        self.host.set_timing(host_latency, 1)
        self.dram.set_timing(dram_latency, 1)

    # -- life -------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Free the model. Safe to call twice."""
        if self._handle is not None:
            self._lib.nf_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> VerilatedDevice:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _call(self, name: str, *args: object):
        if self._handle is None:
            raise NearflashError("the device is closed")
        return getattr(self._lib, name)(self._handle, *args)

    def _run(self, name: str, *args: object) -> int:
        """A call in which cycles pass."""
        result = self._call(name, *args)
        if self._call("nf_error_count"):
            n, text = self._call("nf_error_count"), self._call("nf_error_text").decode()
            self._call("nf_clear_errors")
            raise AxiProtocolError(f"{n} breaches of AXI4:\n{text}")
        return result

    # -- time ---------------------------------------------------------------------------------------------------------
    @property
    def beat_bytes(self) -> int:
        return self._lib.nf_beat_bytes()

    @property
    def cycles(self) -> int:
        """Clock cycles since the device was made, resets included."""
        return self._call("nf_cycles")

    def reset(self, cycles: int = 8) -> None:
        """Hold reset; bursts under way are forgotten, memory contents stay."""
        self._call("nf_reset", cycles)

    def step(self, cycles: int = 1) -> None:
        self._run("nf_step", cycles)

    @property
    def irq(self) -> int:
        """Level of the interrupt output."""
        return self._call("nf_irq")

    def run_until_irq(self, max_cycles: int) -> int:
        """Let time pass until the interrupt is high; returns the cycles it took."""
        n = self._run("nf_run_until_irq", max_cycles)
        if n < 0:
            raise DeviceTimeout(f"no interrupt within {max_cycles} cycles (now at cycle {self.cycles})")
        return n

    def run_until_host_word(self, addr: int, mask: int, value: int, max_cycles: int) -> int:
        """Let time pass until ``word & mask == value`` for the 32-bit word at 4-aligned host address ``addr`` (such as the
        phase bit of a completion); returns the cycles it took."""
        if addr % 4:
            raise ValueError(f"addr = {addr:#x}: must be a multiple of 4")
        n = self._run("nf_run_until_host_word", addr, mask, value, max_cycles)
        if n < 0:
            raise DeviceTimeout(f"host word {addr:#x} & {mask:#x} did not become {value:#x} within {max_cycles} cycles")
        return n

    # -- registers ----------------------------------------------------------------------------------------------------
    def write_register(self, offset: int, value: int) -> None:
        if not 0 <= value < 1 << 32:
            raise ValueError(f"value = {value:#x}: must be 32 bits")
        self._response("write to", offset, self._run("nf_axil_write", offset, value, self.REGISTER_CYCLES))

    def read_register(self, offset: int) -> int:
        value = c_uint32()
        self._response("read of", offset,
                       self._run("nf_axil_read", offset, ctypes.byref(value), self.REGISTER_CYCLES))
        return value.value

    def _response(self, what: str, offset: int, response: int) -> None:
        if response < 0:
            raise DeviceTimeout(f"{what} register {offset:#x}: no answer within {self.REGISTER_CYCLES} cycles")
        if response:
            raise RegisterError(f"{what} register {offset:#x}: AXI response {response}", response)

    # -- windows of a board's memory ------------------------------------------------------------------------------------
    def open_window(self, addr: int, n: int, shadow: np.ndarray | None = None) -> None:
        """From now on the device may access these ``n`` bytes; whatever lies in no window, it may not. ``shadow``: uint8
        [n], the processor's view, which must stay where it is until :meth:`close_window`."""
        if n < 1 or (shadow is not None and (shadow.dtype != np.uint8 or len(shadow) != n or not shadow.flags.c_contiguous)):
            raise ValueError("a window must have bytes, and a shadow of as many")
        self._call("nf_window_open", addr, addr + n - 1, None if shadow is None else shadow.ctypes.data)

    def close_window(self, addr: int) -> None:
        """The window that begins at ``addr`` is none any more."""
        self._call("nf_window_close", addr)

    def window_stale(self, addr: int, n: int) -> bool:
        """Whether the device wrote any of these bytes since they were synchronised."""
        return bool(self._call("nf_window_stale", addr, n))

    def synchronise_window(self, addr: int, n: int) -> None:
        """The processor's view of these bytes is the memory's now."""
        self._call("nf_window_synchronise", addr, n)

    def take_violations(self) -> list[Violation]:
        """What the device did since the last call that it must not (the first 20)."""
        most = 20
        words = (c_uint64 * (4 * most))()
        n = self._call("nf_take_violations", words, most)
        return [Violation(Misuse(words[4 * k]), bool(words[4 * k + 1]), words[4 * k + 2], words[4 * k + 3]) for k in
        range(n)]

    # -- observations ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def observe(self) -> Iterator[Callable[[], np.ndarray]]:
        """Keep every change of what an observed model lets the simulation see while the block runs. Yields a function that
        gives them so far, and forgets them: int64 [changes, 3], the observation's number (its place in ``observed``), the
        cycle since the last reset from which on it has the value, the value. Of such devices, a thread may run one at a
        time."""
        if not self.observed:
            raise NearflashError("this library was not built to be observed")

        def take() -> np.ndarray:
            out = np.empty((self._lib.nf_observed_count() // 3, 3), np.int64)
            self._lib.nf_observed_copy(out.ctypes.data)
            self._lib.nf_observe(1)
            return out

        self._lib.nf_observe(1)
        try:
            yield take
        finally:
            self._lib.nf_observe(0)

    # -- waveforms ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def trace(self, path: Path | str) -> Iterator[Path]:
        """Record waveforms to ``path``, whose suffix becomes ``.fst`` or, where FST could not be built, ``.vcd``. Two time
        units a cycle. Needs a library built with ``trace=True``."""
        suffix = self._lib.nf_trace_suffix().decode()
        if not suffix:
            raise NearflashError("this library was built without trace=True")
        target = Path(path).with_suffix(suffix)
        if self._call("nf_trace_start", str(target).encode()):
            raise NearflashError(f"{target}: cannot be written")
        try:
            yield target
        finally:
            self._call("nf_trace_stop")
