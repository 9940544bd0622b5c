"""Stand-ins for the NumPy objects that lie beside tensors in a checkpoint, so that no NumPy code runs on a file's bytes.

``facebookresearch/dlrm --save-model`` stores its losses as NumPy scalars; others store arrays. NumPy's own functions for
unpickling trust what they are given (a dtype's state can claim that numbers are pointers), so the names that a file asks for
are answered with the classes here, which only keep what they are handed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..contract import DataError

__all__ = ["PlainArray", "safe_names"]

_FLOATS = {"f2": np.float16, "f4": np.float32, "f8": np.float64}


class _PlainType:
    """A dtype: its name, and whether its numbers are big-endian."""

    def __init__(self, name: Any = "", *_: Any):
        self.name, self.big = name, False

    def __setstate__(self, state: Any) -> None:
        self.big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


class PlainArray:
    """An array: shape, type and bytes, as pickled."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self, key: str) -> torch.Tensor:
        """The array as a tensor; :class:`DataError` under ``key`` for one that isn't of whole floats."""
        ok = isinstance(self.state, tuple) and len(self.state) == 5
        _, shape, kind, by_column, raw = self.state if ok else (None,) * 5
        if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and isinstance(kind, _PlainType)
                and isinstance(raw, (bytes, str))):
            raise DataError(key, "a NumPy array", "is damaged, or of a form this reader does not know")
        if not isinstance(kind.name, str) or kind.name not in _FLOATS:
            raise DataError(key, f"a NumPy array of {kind.name!r}", "must be of float16, float32 or float64")
        data = raw.encode("latin-1", "replace") if isinstance(raw, str) else raw
        dtype = np.dtype(_FLOATS[kind.name])
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise DataError(key, len(data), f"must hold {math.prod(shape) * dtype.itemsize} bytes")
        flat = np.frombuffer(data, dtype.newbyteorder(">" if kind.big else "<")).astype(dtype)
        return torch.from_numpy(np.ascontiguousarray(flat.reshape(shape, order="F" if by_column else "C")))


def _scalar(*_: Any) -> None:
    """A scalar: no parameter of a model, so its value is not kept."""


def _array(*_: Any) -> PlainArray:
    return PlainArray()


def safe_names() -> list[Any]:
    """What ``torch.serialization.safe_globals`` takes: (stand-in, name) for the names that NumPy 1 and 2 pickle."""
    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [(_PlainType, "numpy.dtype"), (PlainArray, "numpy.ndarray"), *((_scalar, f"{c}.scalar") for c in cores),
            *((_array, f"{c}._reconstruct") for c in cores)]
