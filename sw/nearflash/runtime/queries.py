"""EmbeddingBag queries to the words of an INFER or LOOKUP command, vectorised over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import DataError
from ..contract.arrays import as_array, check_finite

__all__ = ["normalize_bags", "pack_batch"]


def normalize_bags(bags: Sequence[Any], weights: Sequence[Any] | None = None, include_last_offset: bool | None = False,
                   samples: int | None = None) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Per table (indices int64, lengths int64 [B], weights float32 or None) from (indices, offsets[, weights]).

    ``weights[t]``, where given, takes the place of a bag's own. ``include_last_offset`` as EmbeddingBag's: offsets [B + 1]
    end with the number of indices. None: told by ``samples`` (B) if known; if not, offsets that mean either B bags or one
    more, empty in every table, are refused. Raises :class:`DataError` naming what is malformed.
    """
    if not len(bags):
        raise DataError("bags", 0, "must hold at least one table")
    if weights is not None and len(weights) != len(bags):
        raise DataError("weights", len(weights), f"must hold one entry per table ({len(bags)})")
    tables = [_table(t, bag) for t, bag in enumerate(bags)]
    if _has_last(tables, include_last_offset, samples):
        tables = [(indices, offsets[:-1]) for indices, offsets in tables]
    out = []
    for t, (bag, (indices, offsets)) in enumerate(zip(bags, tables, strict=True)):
        lengths = np.diff(np.append(offsets, len(indices)))
        if (len(offsets) and offsets[0] != 0) or (lengths < 0).any():
            raise DataError(f"bags[{t}].offsets", offsets[:4].tolist(), f"must rise from 0 to {len(indices)}")
        if out and len(lengths) != len(out[0][1]):
            raise DataError(f"bags[{t}].offsets", len(lengths), f"must hold one bag per sample ({len(out[0][1])})")
        w = weights[t] if weights is not None else bag[2] if len(bag) > 2 else None
        if w is not None:
            w = as_array(w).astype(np.float32)
            if w.shape != indices.shape:
                raise DataError(f"bags[{t}].weights", w.shape, f"must hold one weight per index ({indices.shape})")
        out.append((indices, lengths, w))
    return out


def _table(t: int, bag: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(indices, offsets) int64 of table ``t``, each one-dimensional."""
    for name, x in zip(("indices", "offsets"), pair := (as_array(bag[0]), as_array(bag[1])), strict=True):
        if x.ndim != 1 or (x.size and x.dtype.kind not in "iu"):
            raise DataError(f"bags[{t}].{name}", (x.dtype, x.shape), "must be one-dimensional integers")
    indices, offsets = (x.astype(np.int64) for x in pair)
    if indices.size and (indices.min() < 0 or indices.max() >= 1 << 32):
        at = int(np.flatnonzero((indices < 0) | (indices >= 1 << 32))[0])
        raise DataError(f"bags[{t}].indices[{at}]", int(indices[at]), "must be from 0 to 2**32 - 1")
    return indices, offsets


def _has_last(tables: list[tuple[np.ndarray, np.ndarray]], include_last_offset: bool | None, samples: int | None) -> bool:
    """Whether the offsets end with the number of indices, which then begins no bag."""
    ends = [bool(len(offsets)) and offsets[-1] == len(indices) for indices, offsets in tables]
    if include_last_offset:
        if not all(ends):
            t = ends.index(False)
            raise DataError(f"bags[{t}].offsets", tables[t][1][-4:].tolist(),
                            f"with include_last_offset must end with {len(tables[t][0])}, the number of indices")
        return True
    if include_last_offset is False or not all(ends):
        return False
    if samples is not None:
        return all(len(offsets) == samples + 1 for _, offsets in tables)
    if any(len(indices) for indices, _ in tables):
        raise DataError("include_last_offset", None, "the offsets end with the number of indices: say True if that ends the "
                        "last bag, False if it begins a last sample without lookups")
    return False


def pack_batch(dense: Any, bags: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]]
               ) -> tuple[np.ndarray, int, bool]:
    """(words uint32, samples, weighted) of normalised bags. If any table is weighted, all are (with weight 1).

    The same words as :func:`nearflash.reference.query.pack_queries`, which defines them.
    """
    batch = len(bags[0][1])
    d = np.zeros((batch, 0), np.float32) if dense is None else np.ascontiguousarray(as_array(dense), np.float32)
    if d.ndim != 2 or len(d) != batch:
        raise DataError("dense", d.shape, f"must be [{batch}, features]")
    check_finite(d, "dense")
    weighted = any(w is not None for _, _, w in bags)
    step = 2 if weighted else 1
    sizes = np.stack([1 + step * lengths for _, lengths, _ in bags])  # [T, B] words of every bag
    starts = np.zeros(batch, np.int64)
    per_sample = d.shape[1] + sizes.sum(axis=0)
    np.cumsum(per_sample[:-1], out=starts[1:])
    words = np.empty(int(per_sample.sum()), np.uint32)
    words[starts[:, None] + np.arange(d.shape[1])] = d.view(np.uint32)
    at = starts + d.shape[1]
    for (indices, lengths, w), size in zip(bags, sizes, strict=True):
        words[at] = lengths
        first = np.repeat(at + 1 - step * (np.cumsum(lengths) - lengths), lengths)
        place = first + step * np.arange(len(indices))
        words[place] = indices
        if weighted:
            words[place + 1] = (np.ones(len(indices), np.float32) if w is None else w).view(np.uint32)
        at = at + size
    return words, batch, weighted
