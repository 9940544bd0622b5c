"""``await interrupt.wait()``: in place of the kernel's UIO device that PYNQ's interrupt controller driver reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .errors import BoardError

if TYPE_CHECKING:
    from .board import VirtualBoard

__all__ = ["SimUio"]

CHUNK = 20_000  # cycles between two looks of the event loop at its other tasks


class SimUio:
    """One interrupt of the processing system. While someone waits, the device's clock passes."""

    def __init__(self, board: VirtualBoard):
        self._board = board
        self._events: list[Any] = []

    @classmethod
    def install(cls, board: VirtualBoard, parser: Any) -> None:
        """Make ``pynq.interrupt`` use one for each controller of the overlay ``parser`` describes."""
        from pynq.interrupt import _InterruptController

        for entry in parser.interrupt_controllers.values():
            _InterruptController._uio_devices[entry["raw_irq"]] = cls(board)

    def add_event(self, event: Any, number: int) -> None:
        """Set ``event`` (anything with ``set``) when the interrupt is high."""
        if not self._events:
            asyncio.get_event_loop().call_soon(self._pass)
        self._events.append(event)

    def _pass(self) -> None:
        if not self._events:
            return
        try:
            if not self._board.run_until_irq(CHUNK):
                asyncio.get_event_loop().call_soon(self._pass)
                return
        except BoardError as e:  # an event loop would only print it, and whoever awaits would wait for ever
            self._board.defer(e)
            _release(self._events)
            self._events = []
            return
        events, self._events = self._events, []
        for event in events:
            event.set()


def _release(events: list[Any]) -> None:
    """Let whoever awaits ``events`` go on, past PYNQ's interrupt controllers, which would look at their registers first."""
    for event in events:
        if hasattr(event, "wait_handles"):
            for handles in event.wait_handles:
                _release(handles)
                handles.clear()
            event.event_number = 0
        else:
            event.set()
