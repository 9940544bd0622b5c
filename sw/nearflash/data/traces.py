"""Trace files of the field: embedding indices and block I/O."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading

__all__ = ["read_block_trace", "read_dlrm_trace"]


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


BLOCK = np.dtype([("time_ns", "<i8"), ("lba", "<i8"), ("sectors", "<i8"), ("read", "?")])


def read_block_trace(path: str | Path) -> np.ndarray:
    """An MQSim trace: ``arrival_ns device lba size type`` (512-byte sectors; type 0 write, 1 read) per line.

    Returns a structured array (time_ns, lba, sectors, read). Raises :class:`DataError` naming file and line.
    """
    rows = []
    with reading(path):
        for i, line in read_lines(path):
            f = line.split()
            if not f:
                continue
            if len(f) != 5:
                raise DataError(f"line {i}", line[:60], "must be five integers: arrival device lba size type")
            t, _, lba, size, kind = (integer(x, f"line {i} {name}", low=low, high=high) for x, name, low, high in zip(
                f, ("arrival", "device", "lba", "size", "type"), (0, 0, 0, 1, 0), (*[(1 << 63) - 1] * 4, 1), strict=True))
            rows.append((t, lba, size, kind == 1))
        if not rows:
            raise DataError("requests", 0, "must hold at least one request")
    return np.array(rows, BLOCK)
