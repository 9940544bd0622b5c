"""From fp32 models to device integers. :class:`CompiledModel` and the table encoders need NumPy alone; what needs torch
is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .compiled import CompiledModel
from .image import parameter_image
from .tables import encode_rows

if TYPE_CHECKING:
    from .calibrate import Calibrator, to_torch
    from .quantize import QuantizeOptions, compile_model

__all__ = ["Calibrator", "CompiledModel", "QuantizeOptions", "compile_model", "encode_rows", "parameter_image",
           "to_torch"]

_LAZY = {"Calibrator": "calibrate", "to_torch": "calibrate", "QuantizeOptions": "quantize", "compile_model": "quantize"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
