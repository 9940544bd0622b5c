"""Puts the virtual board under stock PYNQ when a program imports it: run by ``nearflash_board.pth`` at the start of every
Python process that has ``NEARFLASH_BOARD`` in its environment. Imports nothing but the standard library until ``pynq`` is
imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``pynq`` as the others do, with a loader that does more."""

    _asking = False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "pynq" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        importlib.import_module(".pynq_device", __package__)

        _without_bit(module)
        _integers(module)


def _without_bit(pynq: Any) -> None:
    """``Overlay("x.bit")`` where only a tool could have made the file: what ``nearflash build`` put beside it will do."""
    bitstream = importlib.import_module("pynq.bitstream")
    resolve = bitstream._resolve_bitstream

    def resolve_here(path: str, device: Any) -> str | None:
        folder, name = os.path.split(path)
        stem, _ = os.path.splitext(name)
        for candidate in (path, os.path.join(folder, f"{name}.d", f"{stem}.{getattr(device, 'name', '')}.bit")):
            if candidate.endswith(".bit") and os.path.isfile(candidate[:-4] + ".hwh"):
                return resolve(path, device) or candidate
        return resolve(path, device)

    bitstream._resolve_bitstream = resolve_here


def _integers(pynq: Any) -> None:
    """A NumPy number that is written to a register gets an error with a name (PYNQ's says that data must be int or
    bytes)."""
    write = pynq.MMIO.write_mm

    def write_mm(self: Any, offset: int, data: Any) -> None:
        if type(data).__module__ == "numpy":
            from .errors import NumpyRegisterWrite

            raise NumpyRegisterWrite(f"register at {self.base_addr + offset:#x}: {type(data).__name__} {data!r} was "
                                     "written; PYNQ takes Python's int alone: int(value)")
        write(self, offset, data)

    pynq.MMIO.write_mm = write_mm


def install() -> None:
    """Wait for ``import pynq``."""
    if "pynq" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


install()
