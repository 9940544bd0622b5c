"""The query stream (:mod:`nearflash.contract.nvme`) and the checks a device makes before it runs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nearflash.contract import DataError, DeviceConfig, Opcode, Status, TableSpec

__all__ = ["QueryCheck", "Sample", "check_query", "pack_queries", "unpack_queries"]

MAX_WORDS = 1 << 30


class QueryCheck(NamedTuple):
    """Outcome of a check: a status and the two command-specific words of the completion."""

    status: Status
    dw0: int = 0
    dw1: int = 0


class Sample(NamedTuple):
    """One parsed sample: ``dense`` float32 [n]; per table a bag of indices and, if weighted, of float32 weights."""

    dense: np.ndarray
    bags: list[np.ndarray]
    weights: list[np.ndarray] | None


def pack_queries(dense: np.ndarray | None, bags: Sequence[Sequence[np.ndarray]],
                 weights: Sequence[Sequence[np.ndarray]] | None = None) -> np.ndarray:
    """Words (uint32) of a batch of B samples.

    ``dense`` [B, n] float32 or None; ``bags[table][sample]`` and, if weighted, ``weights[table][sample]``: 1-D arrays, the
    same length. Raises :class:`~nearflash.contract.DataError` when shapes don't match.
    """
    if not len(bags):
        raise DataError("query.bags", len(bags), "must hold at least one table")
    batch = len(bags[0])
    d = np.zeros((batch, 0), np.float32) if dense is None else np.asarray(dense, np.float32)
    if d.ndim != 2 or len(d) != batch:
        raise DataError("query.dense", d.shape, f"must be [{batch}, features]")
    if weights is not None and len(weights) != len(bags):
        raise DataError("query.weights", len(weights), f"must hold {len(bags)} tables")
    out: list[np.ndarray] = []
    dense_words = np.ascontiguousarray(d).view(np.uint32)
    for t, table in enumerate(bags):
        if len(table) != batch or (weights is not None and len(weights[t]) != batch):
            raise DataError(f"query.bags[{t}]", len(table), f"must hold {batch} samples, like its weights")
    for b in range(batch):
        out.append(dense_words[b])
        for t, table in enumerate(bags):
            index = np.asarray(table[b])
            if index.ndim != 1 or (index.size and (index.dtype.kind not in "iu" or index.min() < 0
                                                   or index.max() >= 1 << 32)):
                raise DataError(f"query.bags[{t}][{b}]", index.dtype, "must be a 1-D array of 32-bit row numbers")
            out.append(np.array([index.size], np.uint32))
            if weights is None:
                out.append(index.astype(np.uint32))
                continue
            w = np.asarray(weights[t][b], np.float32)
            if w.shape != index.shape:
                raise DataError(f"query.weights[{t}][{b}]", w.shape, f"must have one weight per index ({index.size})")
            pairs = np.empty((index.size, 2), np.uint32)
            pairs[:, 0], pairs[:, 1] = index, w.view(np.uint32)
            out.append(pairs.ravel())
    return np.concatenate(out)


def unpack_queries(words: np.ndarray, batch: int, n_tables: int, n_dense: int = 0, weighted: bool = False) -> list[Sample]:
    """Parse a well-formed stream (one that :func:`check_query` accepts) back into samples."""
    words = np.asarray(words, np.uint32)
    samples, p = [], 0
    for _ in range(batch):
        dense = words[p : p + n_dense].view(np.float32)
        p += n_dense
        bags, weights = [], []
        for _ in range(n_tables):
            n, p = int(words[p]), p + 1
            if weighted:
                pairs = words[p : p + 2 * n].reshape(n, 2)
                weights.append(np.ascontiguousarray(pairs[:, 1]).view(np.float32))
                bags.append(pairs[:, 0].astype(np.int64))
                p += 2 * n
            else:
                bags.append(words[p : p + n].astype(np.int64))
                p += n
        samples.append(Sample(dense, bags, weights if weighted else None))
    return samples


def check_query(words: np.ndarray, config: DeviceConfig, tables: Mapping[int, TableSpec], *, opcode: int, batch: int,
                n_tables: int, n_dense: int = 0, weighted: bool = False, out_addr: int = 0) -> QueryCheck:
    """What the device answers before it touches flash; SUCCESS: the query runs.

    ``words`` is the stream, as long as the command says; ``tables`` the open tables. Positions (``dw0``) count words from 0.
    """
    header = _check_header(words, config, tables, opcode, batch, n_tables, n_dense, out_addr)
    if header.status != Status.SUCCESS:
        return header
    stream = np.asarray(words, np.uint32)
    end = QueryCheck(Status.BAD_BATCH, len(stream))
    step = 2 if weighted else 1
    p = 0
    for _ in range(batch):
        p += n_dense
        for t in range(n_tables):
            if p >= len(stream):
                return end
            count, spec = int(stream[p]), tables[t]
            if count > min(config.lookup.max_bag, 1 << spec.headroom):
                return QueryCheck(Status.BAD_BATCH, p)
            index = stream[p + 1 : p + 1 + step * count : step]
            beyond = np.flatnonzero(index >= spec.rows)
            if beyond.size:
                return QueryCheck(Status.INDEX_OUT_OF_RANGE, p + 1 + step * int(beyond[0]), t)
            p += 1 + step * count
            if p > len(stream):
                return end
    if p > len(stream):
        return end
    return QueryCheck(Status.SUCCESS if p == len(stream) else Status.BAD_BATCH, p if p != len(stream) else 0)


def _check_header(words: np.ndarray, config: DeviceConfig, tables: Mapping[int, TableSpec], opcode: int, batch: int,
                  n_tables: int, n_dense: int, out_addr: int) -> QueryCheck:
    lk, graph = config.lookup, config.mlp.graph
    bad = QueryCheck(Status.BAD_BATCH)
    infer = opcode != Opcode.LOOKUP
    if infer and not graph:
        return QueryCheck(Status.NO_PROGRAM)
    if not (1 <= batch <= config.host.max_batch and 1 <= n_tables <= lk.max_tables and 1 <= len(words) < MAX_WORDS):
        return bad
    nodes = [n for n in graph if n.kind == "tables"]
    if infer:
        model = (sum(len(n.tables) for n in nodes), sum(n.width for n in graph if n.kind == "dense"))
        if (n_tables, n_dense) != model:
            return bad
    elif n_dense:
        return bad
    if out_addr % config.beat_bytes:
        return QueryCheck(Status.INVALID_PRP_OFFSET)
    if out_addr >= config.results_reach:
        return QueryCheck(Status.DATA_TRANSFER_ERROR)
    for t in range(n_tables):
        if t not in tables:
            return QueryCheck(Status.UNKNOWN_TABLE, t)
    # every table starts at a whole beat of accumulators
    if sum(-(-tables[t].dim // lk.lanes) * lk.lanes for t in range(n_tables)) > lk.accumulators:
        return bad
    if infer and any(sum(tables[t].dim for t in n.tables) != n.width for n in nodes):
        return bad
    return QueryCheck(Status.SUCCESS)
