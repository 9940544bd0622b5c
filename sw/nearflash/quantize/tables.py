"""Embedding tables as the bytes a device stores: fp32, fp16, or FBGEMM's row-wise int8. NumPy only."""

from __future__ import annotations

import numpy as np

from ..contract import DataError, RowFormat
from ..contract.arrays import check_finite

__all__ = ["encode_rows", "largest_magnitude"]

_CHUNK_ROWS = 1 << 16


def encode_rows(weight: np.ndarray, format: RowFormat, name: str = "table") -> np.ndarray:
    """fp32 ``weight`` [rows, dim] as uint8 [rows, row bytes]. Raises :class:`DataError` for NaN, infinity, or values
    that fp16 cannot hold.

    INT8 gives, bit for bit, what ``torch.ops.quantized.embedding_bag_byte_prepack`` (FBGEMM) does:
    scale = (max - min) / 255, bias = min, q = RNE((x - min) * (255 / (max - min + 1e-8))), in fp32.
    """
    w = np.ascontiguousarray(weight, np.float32)
    if w.ndim != 2:
        raise DataError(name, w.shape, "must be [rows, dim]")
    check_finite(w, name)
    if format == RowFormat.FP32:
        return w.astype("<f4", copy=False).view(np.uint8)
    if format == RowFormat.FP16:
        with np.errstate(over="ignore"):
            h = w.astype("<f2")
        bad = np.argwhere(~np.isfinite(h))
        if len(bad):
            r, c = (int(v) for v in bad[0])
            raise DataError(f"{name}[{r}, {c}]", float(w[r, c]), "must be at most 65504 in magnitude for fp16")
        return h.view(np.uint8)
    out = np.empty((len(w), w.shape[1] + 8), np.uint8)
    for at in range(0, len(w), _CHUNK_ROWS):
        out[at : at + _CHUNK_ROWS] = _encode_int8(w[at : at + _CHUNK_ROWS])
    return out


def _encode_int8(w: np.ndarray) -> np.ndarray:
    low, high = w.min(axis=1), w.max(axis=1)
    with np.errstate(over="ignore"):
        spread = high - low
    bad = np.flatnonzero(~np.isfinite(spread))
    if len(bad):
        raise DataError("table", float(high[bad[0]]), "the range of a row overflows fp32")
    inverse = np.float32(255) / (spread + np.float32(1e-8))
    q = np.rint((w - low[:, None]) * inverse[:, None])
    tail = np.stack([spread / np.float32(255), low], axis=1).astype("<f4")
    return np.concatenate([q.astype(np.uint8), tail.view(np.uint8)], axis=1)


def largest_magnitude(rows: np.ndarray, format: RowFormat, dim: int) -> float:
    """What :func:`nearflash.reference.pooling.choose_window` asks for: the largest |element| of stored rows
    (INT8: the larger of |scale| * 255 and |bias|)."""
    if format == RowFormat.INT8:
        tail = np.ascontiguousarray(rows[:, dim : dim + 8]).view("<f4").astype(np.float64)
        return float(max(np.abs(tail[:, 0]).max(initial=0) * 255, np.abs(tail[:, 1]).max(initial=0)))
    values = np.ascontiguousarray(rows[:, : format.row_bytes(dim)]).view("<f4" if format == RowFormat.FP32 else "<f2")
    return float(np.abs(values).max(initial=0))
