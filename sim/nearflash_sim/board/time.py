"""How a program's time becomes the device's.

The device's clock passes in register accesses, cache maintenance, waits for the interrupt, and sleeps: ``time.sleep(s)`` and
``asyncio.sleep(s)`` let ``s`` times the fabric's clock pass, and take no wall time of their own. Nothing else moves it, so
the same program takes the same cycles each time. A sleep is cut off at :data:`LONGEST` cycles.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .board import VirtualBoard

__all__ = ["LONGEST", "MMIO_CYCLES", "SYNC_CYCLES", "install"]

MMIO_CYCLES = 16  #: of a register access, beside those on the shell's own bus: the processing system's interconnect
SYNC_CYCLES = 100  #: of a flush or invalidate
LONGEST = 200_000_000  #: of one sleep

_sleep, _async_sleep = time.sleep, asyncio.sleep


def install(board: VirtualBoard) -> None:
    """From now on sleeps of this thread are ``board``'s. Others, such as those of a notebook's kernel, stay the system's."""
    owner = threading.get_ident()

    def sleep(seconds: float) -> None:
        if threading.get_ident() != owner:
            return _sleep(seconds)
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        return board.sleep(seconds)

    async def async_sleep(delay: float, result: Any = None) -> Any:
        if threading.get_ident() != owner:
            return await _async_sleep(delay, result)
        board.sleep(max(delay, 0))
        return await _async_sleep(0, result)

    time.sleep, asyncio.sleep = sleep, async_sleep  # type: ignore[assignment]


def uninstall() -> None:
    """Sleeps are the system's again."""
    time.sleep, asyncio.sleep = _sleep, _async_sleep
