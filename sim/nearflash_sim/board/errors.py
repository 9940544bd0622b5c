"""What a real board punishes silently, each with a name. docs/virtual_board.md has an entry for every class, headed by the
symptom on a real board."""

from __future__ import annotations

from nearflash.contract import NearflashError

__all__ = [
    "AllocateBeforeDownload", "BoardError", "BoardInUse", "BogusBuffer", "BusHang", "ForeignOverlay", "LeakedBuffers",
    "LostWrite", "MissingFlush", "MissingInvalidate", "NumpyRegisterWrite", "OutOfMemory", "OutsideBuffer", "Overclocked",
    "OverlayReplaced", "RegisterRefused", "StaleOverlay", "StridedBuffer", "TruncatedAddress", "UnmappedAddress",
    "UseAfterFree", "WrongClock",
]


class BoardError(NearflashError):
    """Base of all. The message says what happened, where, and what to do."""


class MissingFlush(BoardError):
    """The device read memory that the processor had written and not flushed: on a board it sees the old contents."""


class MissingInvalidate(BoardError):
    """The processor read memory that the device had written since, without an invalidate: on a board it sees old
    contents."""


class LostWrite(BoardError):
    """An invalidate threw away what the processor had written and not flushed."""


class OutsideBuffer(BoardError):
    """The device accessed memory that nobody allocated: on a board it reads rubbish, or overwrites another program."""


class TruncatedAddress(OutsideBuffer):
    """The same, and the address is the low 32 bits of a buffer's: the high word was not written."""


class UseAfterFree(OutsideBuffer):
    """The same, and a buffer was there until it was freed."""


class BogusBuffer(BoardError):
    """An array computed from a buffer was used as one: its ``device_address`` is not of the memory it lies in."""


class StridedBuffer(BoardError):
    """Flush or invalidate of a slice with gaps: stock PYNQ synchronises only its first ``nbytes`` bytes."""


class LeakedBuffers(BoardError):
    """Buffers were never freed when the board was closed."""


class OutOfMemory(BoardError):
    """The contiguous memory of the board is used up."""


class UnmappedAddress(BoardError, OSError):
    """A register access at an address where nothing answers: a bus error, or a hang, on a board."""


class RegisterRefused(BoardError, OSError):
    """A block answered a register access with an error: no such register, or part of one."""


class NumpyRegisterWrite(BoardError, ValueError):
    """A register was written with a NumPy number, which stock PYNQ refuses."""


class BusHang(BoardError):
    """A register access was never answered: the processors of a board would hang in it."""


class WrongClock(BoardError):
    """The overlay's clock settings make another clock than its design was generated for: divisors for another crystal."""


class Overclocked(BoardError):
    """The clock was set above what the design was generated for."""


class ForeignOverlay(BoardError):
    """The overlay was not made by ``nearflash build``, or for another board: there is nothing to simulate."""


class StaleOverlay(BoardError):
    """The files of the overlay are of different builds."""


class OverlayReplaced(BoardError):
    """A block of an overlay was used after another overlay was downloaded."""


class AllocateBeforeDownload(BoardError):
    """Memory was allocated before an overlay was downloaded."""


class BoardInUse(BoardError):
    """Another process uses this board."""
