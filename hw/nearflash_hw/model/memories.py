"""Memories without their zeros."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from amaranth.back import rtlil

__all__ = ["without_zeros"]


@contextlib.contextmanager
def without_zeros() -> Iterator[None]:
    """RTLIL of memories that begin as all zeros is written without initial contents in the body.

    Amaranth writes them bit by bit: a fifth of a device's conversion, minutes where a large model's weights are on chip. A
    simulation that begins every memory with zeros doesn't need them.
    """
    emit = rtlil.ModuleEmitter.emit_memory

    def emit_memory(self: Any, index: Any, cell: Any) -> None:
        if any(cell.init):
            emit(self, index, cell)

    with mock.patch.object(rtlil.ModuleEmitter, "emit_memory", emit_memory):
        yield
