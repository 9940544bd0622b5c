"""Train a small DLRM from a real data set (MovieTweetings or a Criteo-format file) and score it by AUC.

The recipe is one frozen dataclass, stored in the checkpoint with the scores it reached. Split by time: the first 80 % of
the queries train, the next 10 % choose the epoch, the last 10 % are the held-out test.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .contract import DataError, ModelError
from .data import Criteo, MovieTweetings, QueryBatch
from .models import ModelSpec, RecModel, TableShape
from .reference.metrics import auc_or_none, why_no_auc
from .whole import whole_file

__all__ = ["Recipe", "load_checkpoint", "load_dataset", "predict", "save_checkpoint", "train"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, given the data set."""

    dataset: str = "movietweetings"
    interaction: str = "dot"
    dim: int = 32
    bottom: tuple[int, ...] = (64, 32)
    top: tuple[int, ...] = (64, 32, 1)
    history: int = 20  # MovieTweetings: earlier likes kept
    rows: int = 10_000  # Criteo: rows per hashed category
    epochs: int = 5
    batch: int = 256
    learning_rate: float = 2e-3
    embedding_rate: float = 5e-4
    weight_decay: float = 1e-5
    embedding_decay: float = 1.0
    dropout: float = 0.3  # of pooled vectors, in training
    init: float = 0.01  # standard deviation of the embeddings at the start
    seed: int = 0

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Recipe:
        """From plain data, as a checkpoint stores it."""
        kw: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**kw)


def load_dataset(path: str | Path, recipe: Recipe) -> tuple[QueryBatch, QueryBatch, QueryBatch, list[tuple[int, int]]]:
    """(train, valid, test, [(rows, typical lookups) per table]) of a MovieTweetings folder or a Criteo file."""
    if recipe.dataset == "movietweetings":
        m = MovieTweetings.load(path, recipe.history)
        shapes = list(zip(m.rows, (1, 1, 8, recipe.history), strict=True))
        return m.train, m.valid, m.test, shapes
    if recipe.dataset == "criteo":
        c = Criteo.load(path, recipe.rows)
        n = len(c.queries)
        return (c.queries[: int(n * 0.8)], c.queries[int(n * 0.8) : int(n * 0.9)], c.queries[int(n * 0.9) :],
                [(recipe.rows, 1)] * len(c.queries.bags))
    raise DataError("dataset", recipe.dataset, "must be 'movietweetings' or 'criteo'")


def _tensors(q: QueryBatch) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    return torch.from_numpy(q.dense), [(torch.from_numpy(i), torch.from_numpy(o)) for i, o in q.bags]


def predict(model: RecModel, queries: QueryBatch, batch: int = 4096) -> np.ndarray:
    """fp32 logits [B] of ``model`` in eval mode."""
    model.eval()
    with torch.no_grad():
        return np.concatenate([model(*_tensors(queries[i : i + batch]))[:, 0].numpy()
                               for i in range(0, len(queries), batch)])


def _gather(q: QueryBatch, order: np.ndarray) -> QueryBatch:
    """Queries ``order`` of ``q``, in that order."""
    assert q.labels is not None
    bags = []
    for indices, offsets in q.bags:
        ends = np.append(offsets, len(indices))
        starts, lengths = ends[order], ends[order + 1] - ends[order]
        new = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        pick = np.repeat(starts - new, lengths) + np.arange(lengths.sum())
        bags.append((indices[pick], new))
    return QueryBatch(q.dense[order], tuple(bags), q.labels[order])


def train(path: str | Path, recipe: Recipe, report: Callable[[int, float, float | None], None] = lambda *a: None
          ) -> tuple[RecModel, dict[str, Any]]:
    """Train by ``recipe``; ``report(epoch, train loss, validation AUC)`` after each epoch. The epoch with the best
    validation AUC is kept; where that is undefined, it is None, and the epoch with the least validation loss is kept.
    Returns the model and its scores. Deterministic on one machine for a given torch."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    train_q, valid_q, test_q, shapes = load_dataset(path, recipe)
    assert train_q.labels is not None
    assert valid_q.labels is not None
    assert test_q.labels is not None
    spec = ModelSpec(f"{recipe.dataset}-dlrm", tuple(TableShape(r, recipe.dim, k) for r, k in shapes),
                     train_q.dense.shape[1], recipe.bottom, recipe.top, recipe.interaction)
    model = RecModel(spec, seed=recipe.seed)
    for table in model.embeddings.parameters():
        nn.init.normal_(table, 0, recipe.init)
    optimizer = torch.optim.AdamW([
        {"params": model.embeddings.parameters(), "lr": recipe.embedding_rate, "weight_decay": recipe.embedding_decay},
        {"params": model.linears.parameters(), "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}])
    steps = recipe.epochs * -(-len(train_q) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [recipe.embedding_rate, recipe.learning_rate], total_steps=steps, pct_start=0.1)

    def dropout(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(out, recipe.dropout, module.training)

    drop = [e.register_forward_hook(dropout) for e in model.embeddings]
    loss_of = nn.BCEWithLogitsLoss()
    valid_auc, best, best_state = None, -1.0, None
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        order = rng.permutation(len(train_q))
        for i in range(0, len(order), recipe.batch):
            q = _gather(train_q, order[i : i + recipe.batch])
            loss = loss_of(model(*_tensors(q))[:, 0], torch.from_numpy(q.labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(q)
        logits = predict(model, valid_q)
        score = auc_or_none(valid_q.labels, logits)
        report(epoch + 1, total / len(train_q), score)
        quality = score if score is not None else -float(loss_of(torch.from_numpy(logits), torch.from_numpy(valid_q.labels)))
        if best_state is None or quality > best:
            valid_auc, best, best_state = score, quality, {k: v.clone() for k, v in model.state_dict().items()}
    for h in drop:
        h.remove()
    assert best_state is not None
    model.load_state_dict(best_state)
    scores: dict[str, Any] = {"train_queries": len(train_q), "test_queries": len(test_q), "valid_auc": valid_auc,
                              "test_auc": auc_or_none(test_q.labels, predict(model, test_q))}
    for name, labels in (("valid", valid_q.labels), ("test", test_q.labels)):
        if scores[f"{name}_auc"] is None:
            scores[f"{name}_auc_note"] = why_no_auc(labels)
    return model, scores


def save_checkpoint(path: str | Path, model: RecModel, recipe: Recipe, scores: dict[str, Any]) -> None:
    """One ``.npz``: the parameters, the spec, the recipe and its scores. Written whole or not at all."""
    path = Path(path)
    arrays: dict[str, Any] = {k: v.numpy() for k, v in model.state_dict().items()}
    about = {"spec": model.spec.to_dict(), "recipe": dataclasses.asdict(recipe), "scores": scores}
    with whole_file(path) as part, open(part, "wb") as f:
        np.savez_compressed(f, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def load_checkpoint(path: str | Path) -> tuple[RecModel, dict[str, Any]]:
    """The model of :func:`save_checkpoint` and ``{"spec", "recipe", "scores"}``. Raises :class:`DataError` for a file that
    is no such checkpoint and :class:`ModelError` when its shapes do not fit its spec."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
        about = json.loads(arrays.pop("about").tobytes())
        spec = ModelSpec.from_dict(about["spec"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, json.JSONDecodeError) as e:
        if isinstance(e, ModelError):
            raise
        raise DataError("checkpoint", str(path), f"not a nearflash checkpoint ({e})") from e
    model = RecModel(spec)
    want = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    for k, shape in want.items():
        if k not in arrays:
            raise ModelError(f"checkpoint[{k}]", None, f"missing: must be an array of shape {shape}")
        if arrays[k].shape != shape:
            raise ModelError(f"checkpoint[{k}].shape", arrays[k].shape, f"must be {shape}")
        if not np.isfinite(arrays[k]).all():
            raise DataError(f"checkpoint[{k}]", "NaN or Inf", "must be finite")
    for k in arrays:
        if k not in want:
            raise ModelError(f"checkpoint[{k}]", arrays[k].shape, "unknown parameter")
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return model, about
