"""The PyTorch side of a :class:`~nearflash.models.spec.ModelSpec`: one module for every model of the family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..contract import DataError, ModelError
from .spec import ModelSpec

__all__ = ["Bag", "RecModel"]

#: One table's lookups for a batch: (indices, offsets) or (indices, offsets, per_sample_weights), as EmbeddingBag's.
Bag = Sequence[Tensor]


class RecModel(nn.Module):
    """A recommendation model that executes ``spec.nodes()`` in fp32 and returns logits [batch, outputs].

    Inputs: ``dense`` float [batch, spec.dense] and, per table, a :data:`Bag`. Parameters: ``embeddings`` (one
    EmbeddingBag a table) and ``linears`` (one Linear per fc node, by node name).
    ``table_names``: the tables' names in the checkpoint they came from, else empty.
    Embeddings start uniform such that a pooled element has variance 1, whatever the bag.
    """

    def __init__(self, spec: ModelSpec, *, seed: int = 0):
        super().__init__()
        self.spec = spec
        self.graph = spec.nodes()
        self.table_names: tuple[str, ...] = ()
        gen = torch.Generator().manual_seed(seed)
        self.embeddings = nn.ModuleList()
        for t in spec.tables:
            bound = (3.0 / (t.lookups if t.mode == "sum" else 1)) ** 0.5
            try:
                w = torch.empty(t.rows, t.dim)
            except RuntimeError as e:
                raise ModelError(f"tables[{len(self.embeddings)}]", (t.rows, t.dim), f"needs {4 * t.rows * t.dim} bytes of "
                                 "memory, which can't be had") from e
            w.uniform_(-bound, bound, generator=gen)
            self.embeddings.append(nn.EmbeddingBag(t.rows, t.dim, mode=t.mode, _weight=w, include_last_offset=False))
        self.linears = nn.ModuleDict()
        for n, columns in spec.layers():
            layer = nn.Linear(columns, n.width)
            with torch.no_grad():  # as facebookresearch/dlrm initialises its layers
                layer.weight.normal_(0, (2.0 / (columns + n.width)) ** 0.5, generator=gen)
                layer.bias.normal_(0, (1.0 / n.width) ** 0.5, generator=gen)
            self.linears[n.name] = layer

    def pool(self, bags: Sequence[Bag]) -> list[Tensor]:
        """Pooled vectors [batch, dim] of every table."""
        if len(bags) != len(self.embeddings):
            raise DataError("bags", len(bags), f"must hold one entry per table ({len(self.embeddings)})")
        out = []
        for i, (e, bag) in enumerate(zip(self.embeddings, bags, strict=True)):
            weights = bag[2] if len(bag) > 2 else None
            if weights is not None and e.mode != "sum":
                raise DataError(f"bags[{i}]", "per_sample_weights", "weighted bags need mode 'sum'")
            out.append(e(bag[0], bag[1], per_sample_weights=weights))
        return out

    def trace(self, dense: Tensor | None, bags: Sequence[Bag]) -> dict[str, Tensor]:
        """The value of every node of the graph, by name; tables also one by one as ``table0``, ``table1``, ..."""
        pooled = self.pool(bags)
        v: dict[str, Tensor] = {f"table{i}": p for i, p in enumerate(pooled)}
        for n in self.graph:
            if n.kind == "dense":
                if dense is None or dense.shape[-1] != n.width:
                    raise DataError("dense", None if dense is None else tuple(dense.shape), f"must be [batch, {n.width}]")
                v[n.name] = dense
            elif n.kind == "tables":
                v[n.name] = torch.cat([pooled[t] for t in n.tables], 1)
            elif n.kind == "mul":
                v[n.name] = v[n.inputs[0]] * v[n.inputs[1]]
            elif n.kind == "dot":
                x = torch.cat([v[i] for i in n.inputs], 1)
                x = x.view(x.shape[0], -1, n.dim)
                i, j = torch.tril_indices(x.shape[1], x.shape[1], -1)
                v[n.name] = torch.bmm(x, x.transpose(1, 2))[:, i, j]
            else:
                y = self.linears[n.name](torch.cat([v[i] for i in n.inputs], 1))
                v[n.name] = torch.relu(y) if n.relu else y
        return v

    def forward(self, dense: Tensor | None, bags: Sequence[Bag]) -> Tensor:
        return self.trace(dense, bags)[self.graph[-1].name]
