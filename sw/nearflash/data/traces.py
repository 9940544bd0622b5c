"""Trace files of the field: embedding indices and block I/O."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract import DataError

__all__ = ["read_block_trace", "read_dlrm_trace"]


def read_dlrm_trace(path: str | Path) -> np.ndarray:
    """A DLRM trace log: integers separated by commas and white space. Returns int64 [n]. Raises :class:`DataError`."""
    text = Path(path).read_text().replace(",", " ").split()
    try:
        out = np.array([int(t) for t in text], np.int64)
    except ValueError:
        bad = next(t for t in text if not t.lstrip("-").isdigit())
        raise DataError("trace", bad, "must be integers separated by commas or white space") from None
    if not len(out):
        raise DataError("trace", str(path), "must hold at least one index")
    if out.min() < 0:
        raise DataError("trace", int(out.min()), "indices must be at least 0")
    return out


BLOCK = np.dtype([("time_ns", "<i8"), ("lba", "<i8"), ("sectors", "<i8"), ("read", "?")])


def read_block_trace(path: str | Path) -> np.ndarray:
    """An MQSim trace: ``arrival_ns device lba size type`` (512-byte sectors; type 0 write, 1 read) per line.

    Returns a structured array (time_ns, lba, sectors, read). Raises :class:`DataError` naming the line.
    """
    rows = []
    for i, line in enumerate(Path(path).read_text().splitlines(), 1):
        f = line.split()
        if not f:
            continue
        try:
            t, _, lba, size, kind = (int(x) for x in f)
        except ValueError:
            raise DataError(f"trace line {i}", line[:60], "must be five integers: arrival device lba size type") from None
        if kind not in (0, 1) or lba < 0 or size < 1 or t < 0:
            raise DataError(f"trace line {i}", line[:60], "type must be 0 or 1, arrival and lba >= 0, size >= 1")
        rows.append((t, lba, size, kind == 1))
    if not rows:
        raise DataError("trace", str(path), "must hold at least one request")
    return np.array(rows, BLOCK)
