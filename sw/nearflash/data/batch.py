"""A batch of queries, in EmbeddingBag's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract import DataError

__all__ = ["QueryBatch"]


@dataclass(frozen=True)
class QueryBatch:
    """B queries: ``dense`` float32 [B, F]; ``bags[t]`` = (indices int64 [n_t], offsets int64 [B]) as torch.nn.EmbeddingBag
    takes them; ``weights[t]`` float32 [n_t] or None; ``labels`` float32 [B] or None."""

    dense: np.ndarray
    bags: tuple[tuple[np.ndarray, np.ndarray], ...]
    labels: np.ndarray | None = None
    weights: tuple[np.ndarray, ...] | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def lookups(self) -> int:
        return sum(len(i) for i, _ in self.bags)

    @property
    def largest_bags(self) -> tuple[int, ...]:
        """Lookups of the largest bag of each table."""
        return tuple(int(np.diff(np.append(o, len(i))).max(initial=0)) for i, o in self.bags)

    @classmethod
    def from_lists(cls, dense: np.ndarray, lists: Sequence[Sequence[np.ndarray]],
                   labels: np.ndarray | None = None) -> QueryBatch:
        """``lists[t][b]``: the indices of query b in table t (may be empty)."""
        bags = []
        for rows in lists:
            lengths = np.array([len(r) for r in rows], np.int64)
            offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
            indices = np.concatenate([np.asarray(r, np.int64) for r in rows]) if lengths.sum() else np.zeros(0, np.int64)
            bags.append((indices, offsets))
        return cls(np.asarray(dense, np.float32), tuple(bags), labels)

    def __getitem__(self, s: slice) -> QueryBatch:
        """Queries ``s`` (a slice with step 1), offsets rebased."""
        start, stop, step = s.indices(len(self))
        if step != 1:
            raise DataError("slice.step", step, "must be 1")
        bags, weights = [], []
        for t, (indices, offsets) in enumerate(self.bags):
            ends = np.append(offsets, len(indices))
            lo, hi = ends[start], ends[max(stop, start)]
            bags.append((indices[lo:hi], offsets[start:stop] - lo))
            if self.weights is not None:
                weights.append(self.weights[t][lo:hi])
        return QueryBatch(self.dense[start:stop], tuple(bags), None if self.labels is None else self.labels[start:stop],
                          tuple(weights) if self.weights is not None else None)
