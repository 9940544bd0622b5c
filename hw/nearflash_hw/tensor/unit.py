"""The ports that units of operators have in common, from which the engine connects any of them."""

from __future__ import annotations

from typing import Any

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TensorConfig

from ..engine.requantize import Scale
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .array import step_layout, sums_layout
from .groups import group_layout
from .input_buffer import read_layout
from .plan import tile_layout

__all__ = ["array_ports", "epilogue_ports", "input_ports", "unit_ports"]


def unit_ports(beat_bytes: int, reads: int) -> dict[str, Any]:
    """Of every unit: ``start``, a ``done`` for each, with ``error`` if a read or write failed on the way, ``reads`` ports
    ``mem_read`` and one ``mem_write``."""
    return {
        "start": In(1),
        "done": Out(stream.Signature(data.StructLayout({"error": 1}))),
        "mem_read": Out(MemReadSignature(beat_bytes)).array(reads),
        "mem_write": Out(MemWriteSignature(beat_bytes)),
    }


def epilogue_ports(lanes: int, *, residual: bool = False) -> dict[str, Any]:
    """Of a unit that uses the engine's :class:`~nearflash_hw.tensor.epilogue.Epilogue`: ``sums``, ``entry`` and, with
    ``residual``, ``residual`` go there, ``codes`` come back."""
    return {
        "sums": Out(stream.Signature(sums_layout(lanes))),
        "entry": Out(stream.Signature(Scale())),
        **({"residual": Out(stream.Signature(group_layout(lanes)))} if residual else {}),
        "codes": In(stream.Signature(group_layout(lanes))),
    }


def input_ports(config: TensorConfig) -> dict[str, Any]:
    """Of a unit that uses the engine's :class:`~nearflash_hw.tensor.input_buffer.InputTiles`, as nobody else meanwhile:
    ``x_tile``, ``x_read`` and ``x_release`` go there, ``x_available``, ``x_data`` and ``x_error`` come back."""
    return {
        "x_tile": Out(stream.Signature(tile_layout(config))),
        "x_available": In(1),
        "x_read": Out(read_layout(config)),
        "x_data": In(8 * config.columns),
        "x_release": Out(1),
        "x_error": In(1),
    }


def array_ports(config: TensorConfig, beat_bytes: int) -> dict[str, Any]:
    """Of a unit that uses the engine's :class:`~nearflash_hw.tensor.array.PixelArray`, which nobody else uses meanwhile:
    ``step`` and ``weight`` go there, ``array_sums`` come back."""
    return {
        "step": Out(stream.Signature(step_layout(config.columns, config.pixels))),
        "weight": Out(stream.Signature(8 * beat_bytes)),
        "array_sums": In(stream.Signature(sums_layout(config.lanes))),
    }
