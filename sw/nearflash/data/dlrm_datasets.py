"""Embedding accesses as facebookresearch/dlrm_datasets publishes them: ``.pt.gz`` of (indices, offsets, lengths)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import reading

__all__ = ["read_dlrm_dataset"]

_GZIP = b"\x1f\x8b"
_WHAT = "a dlrm_datasets file: (indices, offsets, lengths) as torch.save writes them"


def read_dlrm_dataset(path: str | Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per table (indices int64 [n], offsets int64 [queries], from 0 on), of a file that is packed with gzip or not.

    The file is table-major: of T tables and B queries, ``lengths`` is [T, B], and the bags of table t begin at
    ``offsets[B * t : B * (t + 1)]``. Takes PyTorch; only tensors are unpickled. Raises :class:`DataError` naming the file
    and what is wrong in it.
    """
    import torch

    with reading(path):
        raw = Path(path).read_bytes()
        with reading(path, _WHAT):
            held = torch.load(io.BytesIO(gzip.decompress(raw) if raw[:2] == _GZIP else raw), map_location="cpu",
                              weights_only=True)
        if not isinstance(held, (tuple, list)) or len(held) != 3 or not all(isinstance(x, torch.Tensor) for x in held):
            raise DataError("content", type(held).__name__, "must be three tensors: indices, offsets, lengths")
        for name, x in zip(("indices", "offsets", "lengths"), held, strict=True):
            if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
                raise DataError(f"{name}.dtype", str(x.dtype), "must be integers")
        indices, offsets, lengths = (x.numpy().astype(np.int64) for x in held)
        if lengths.ndim != 2 or not lengths.size:
            raise DataError("lengths.shape", lengths.shape, "must be [tables, queries], none of them 0")
        if lengths.min() < 0:
            raise DataError("lengths", int(lengths.min()), "must not be negative")
        ends = np.concatenate([[0], np.cumsum(lengths.reshape(-1))])
        if indices.ndim != 1 or len(indices) != ends[-1]:
            raise DataError("indices.shape", indices.shape, f"must be [{ends[-1]}], the sum of lengths")
        if offsets.shape != ends.shape or (offsets != ends).any():
            raise DataError("offsets", offsets[:8].tolist(), "must be the running sum of lengths, from 0 on")
        if len(indices) and indices.min() < 0:
            raise DataError("indices", int(indices.min()), "must not be negative")
        tables, queries = lengths.shape
        starts = ends[: tables * queries : queries]
        stops = np.append(starts[1:], ends[-1])
        return [(indices[a:b], ends[t * queries : (t + 1) * queries] - a)
                for t, (a, b) in enumerate(zip(starts, stops, strict=True))]
