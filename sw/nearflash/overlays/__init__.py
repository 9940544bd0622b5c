"""Designs for boards, where PYNQ looks for them: ``pynq.Overlay("movietweetings.bit")`` finds the files of the board it
runs on. What a tool made of them, and what not: ``bitstreams/README.md``."""

from __future__ import annotations

from pathlib import Path

from ..quantize.compiled import CompiledModel

__all__ = ["compiled_model"]


def compiled_model(design: str) -> CompiledModel:
    """The model that ships with ``design``; :meth:`~nearflash.quantize.CompiledModel.on` puts it on a board's device."""
    return CompiledModel.load(Path(__file__).parent / design / f"{design}.npz")
