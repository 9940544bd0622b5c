"""Train a small DLRM from a real data set (MovieTweetings or a Criteo-format file) and score it by AUC.

The recipe is one frozen dataclass, stored in the checkpoint with the scores it reached. Split by time: the first 80 % of
the queries train, the next 10 % choose the epoch, the last 10 % are the held-out test.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .contract import DataError, ModelError
from .contract.arrays import read_arrays
from .contract.reading import reading
from .contract.typed import check_table
from .data import Criteo, MovieTweetings, QueryBatch
from .data.criteo import CATEGORIES
from .models import ModelSpec, RecModel, TableShape
from .reference.metrics import auc_or_none, why_no_auc
from .whole import whole_file

__all__ = ["SHIPPED", "Recipe", "every_query", "is_trained", "load_checkpoint", "load_dataset", "predict", "replay",
           "save_checkpoint", "train"]

FEWEST_QUERIES = 20  # of a data set to train from: two to choose the epoch by, two to test
_ABOUT = "about.npy"  # member of a checkpoint
_WHAT = "a nearflash checkpoint"
#: The checkpoint that comes with nearflash: a DLRM of MovieTweetings.
SHIPPED = Path(str(files("nearflash") / "weights" / "movietweetings.npz"))


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
        """From plain data, as a checkpoint stores it. Raises :class:`DataError` for an unknown field or a wrong type."""
        return cls(**check_table(cls, d, "recipe", DataError))


def load_dataset(path: str | Path, recipe: Recipe) -> tuple[QueryBatch, QueryBatch, QueryBatch, list[tuple[int, int]]]:
    """(train, valid, test, [(rows, typical lookups) per table]) of a MovieTweetings folder or a Criteo file."""
    if recipe.dataset == "movietweetings":
        m = MovieTweetings.load(path, recipe.history)
        shapes = list(zip(m.rows, (1, 1, 8, recipe.history), strict=True))
        return m.train, m.valid, m.test, shapes
    if recipe.dataset == "criteo":
        c = Criteo.load(path, recipe.rows)
        return *_split(c.queries), [(recipe.rows, 1)] * len(c.queries.bags)
    raise DataError("dataset", recipe.dataset, "must be 'movietweetings' or 'criteo'")


def replay(path: str | Path, spec: ModelSpec, recipe: Recipe | None, history: int | None = None
           ) -> tuple[QueryBatch, QueryBatch]:
    """(training queries, held-out test queries) of a data set, for a model of ``spec``.

    ``recipe``: of a model trained here. Without it the path tells the data set: a folder is MovieTweetings (``history``:
    earlier likes kept, default the recipe's), a file is Criteo, whose categories are hashed into the rows that each of the
    model's tables has. Raises :class:`DataError` naming file and table when the queries don't fit the model.
    """
    if recipe is None and not Path(path).is_dir():
        if len(spec.tables) != CATEGORIES:
            raise DataError("tables", len(spec.tables), f"the data set has {CATEGORIES}, so must the model", str(path))
        parts = _split(Criteo.load(path, [t.rows for t in spec.tables]).queries)
        train_q, test_q = parts[0], parts[2]
    else:
        train_q, _, test_q, _ = load_dataset(path, recipe or Recipe(history=history or Recipe.history))
    for q in (train_q, test_q):
        _check_fit(q, spec, path)
    return train_q, test_q


def every_query(path: str | Path, spec: ModelSpec, recipe: Recipe) -> QueryBatch:
    """All queries of a data set in order of time, without labels, for a model of ``spec`` trained by ``recipe``. Raises as
    :func:`replay`."""
    parts = load_dataset(path, recipe)[:3]
    for q in parts:
        if len(q):
            _check_fit(q, spec, path)
    bags = []
    for tables in zip(*(q.bags for q in parts), strict=True):
        starts = np.cumsum([0, *(len(i) for i, _ in tables)])
        bags.append((np.concatenate([i for i, _ in tables]),
                     np.concatenate([o + s for (_, o), s in zip(tables, starts, strict=False)])))
    return QueryBatch(np.concatenate([q.dense for q in parts]), tuple(bags))


def _check_fit(q: QueryBatch, spec: ModelSpec, path: str | Path) -> None:
    if len(q.bags) != len(spec.tables):
        raise DataError("tables", len(spec.tables), f"the data set has {len(q.bags)}, so must the model", str(path))
    if q.dense.shape[1] != spec.dense:
        raise DataError("dense features", spec.dense, f"the data set has {q.dense.shape[1]}, so must the model", str(path))
    if not len(q):
        raise DataError("queries", 0, "too few: none is left to replay", str(path))
    for t, ((indices, _), table) in enumerate(zip(q.bags, spec.tables, strict=True)):
        if len(indices) and indices.max() >= table.rows:
            raise DataError(f"index for table {t}", int(indices.max()), f"must be below the table's {table.rows} rows",
                            str(path))


def _split(q: QueryBatch) -> tuple[QueryBatch, QueryBatch, QueryBatch]:
    n = len(q)
    return q[: int(n * 0.8)], q[int(n * 0.8) : int(n * 0.9)], q[int(n * 0.9) :]


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
    count = len(train_q) + len(valid_q) + len(test_q)
    if count < FEWEST_QUERIES:
        raise DataError("queries", count, f"training needs at least {FEWEST_QUERIES}", str(path))
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
    total = max(steps, 3)  # the cycle's two phases need a step each beside the first
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [recipe.embedding_rate, recipe.learning_rate], total_steps=total, pct_start=max(0.1, 2 / total))

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


def save_checkpoint(path: str | Path, model: RecModel, recipe: Recipe, scores: dict[str, Any],
                    placement: str | None = None) -> None:
    """One ``.npz``: the parameters, the spec, the recipe and its scores, and where its rows were placed, the mapping's
    digest (:class:`~nearflash.runtime.placement.Placement`). Written whole or not at all."""
    path = Path(path)
    arrays: dict[str, Any] = {k: v.numpy() for k, v in model.state_dict().items()}
    about = {"spec": model.spec.to_dict(), "recipe": dataclasses.asdict(recipe), "scores": scores}
    about |= {} if placement is None else {"placement": placement}
    with whole_file(path) as part, open(part, "wb") as f:
        np.savez_compressed(f, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def is_trained(path: str | Path) -> bool:
    """Whether the file is a checkpoint of :func:`save_checkpoint`, whatever its name. Raises :class:`DataError` when it
    can't be read."""
    import zipfile

    with reading(path):
        try:
            with zipfile.ZipFile(path) as z:
                return _ABOUT in z.namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return False


def load_checkpoint(path: str | Path) -> tuple[RecModel, dict[str, Any]]:
    """The model of :func:`save_checkpoint` and ``{"spec", "recipe", "scores"}``, with ``"placement"`` if its rows were
    placed. Raises :class:`DataError` for a file that is no such checkpoint and :class:`ModelError` when its shapes do not
    fit its spec; both name the file."""
    with reading(path):
        arrays = read_arrays(path, _WHAT)
        with reading(path, _WHAT):
            about = json.loads(arrays.pop("about", np.zeros(0)).tobytes())
        return _checked(arrays, about), about


def _checked(arrays: dict[str, np.ndarray], about: Any) -> RecModel:
    """The model of a checkpoint's contents; its shapes are compared before a model of that size is made."""
    for k in ("spec", "recipe", "scores"):
        if not isinstance(about, dict) or not isinstance(about.get(k), dict):
            raise DataError(f"about.{k}", None, "must be a table of named values")
    Recipe.from_dict(about["recipe"])
    if not isinstance(about.get("placement", ""), str):
        raise DataError("about.placement", about["placement"], "must be the digest of an index mapping")
    for k, v in about["scores"].items():
        if isinstance(v, bool) or not isinstance(v, (int, float, str, type(None))):
            raise DataError(f"about.scores.{k}", v, "must be a number, a note or nothing")
    spec = ModelSpec.from_dict(about["spec"])
    want: dict[str, tuple[int, ...]] = {f"embeddings.{i}.weight": (t.rows, t.dim) for i, t in enumerate(spec.tables)}
    for n, columns in spec.layers():
        want |= {f"linears.{n.name}.weight": (n.width, columns), f"linears.{n.name}.bias": (n.width,)}
    for k, shape in want.items():
        if k not in arrays:
            raise ModelError(f"checkpoint[{k}]", None, f"missing: must be an array of shape {shape}")
        if arrays[k].shape != shape:
            raise ModelError(f"checkpoint[{k}].shape", arrays[k].shape, f"must be {shape}")
        if arrays[k].dtype != np.float32:
            raise ModelError(f"checkpoint[{k}].dtype", str(arrays[k].dtype), "must be float32")
        if not np.isfinite(arrays[k]).all():
            raise DataError(f"checkpoint[{k}]", "NaN or Inf", "must be finite")
    for k in arrays:
        if k not in want:
            raise ModelError(f"checkpoint[{k}]", arrays[k].shape, "unknown parameter")
    model = RecModel(spec)
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return model
