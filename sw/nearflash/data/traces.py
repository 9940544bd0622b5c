"""Trace files of the field: embedding indices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading

__all__ = ["read_dlrm_trace"]


def read_dlrm_trace(path: str | Path) -> np.ndarray:
    """A DLRM trace log: integers separated by commas and white space. Returns int64 [n]. Raises :class:`DataError` naming
    file and line."""
    out: list[int] = []
    with reading(path):
        for i, line in read_lines(path):
            out += [integer(t, f"line {i} index", low=0) for t in line.replace(",", " ").split()]
        if not out:
            raise DataError("indices", 0, "must hold at least one index")
    return np.array(out, np.int64)
