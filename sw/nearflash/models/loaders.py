"""Real checkpoints to :class:`RecModel`: facebookresearch/dlrm and torchrec's DLRM. Everything a file holds is either
used exactly or refused with its key: nothing is skipped or approximated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract import DataError, ModelError
from .module import RecModel
from .spec import ModelSpec, TableShape

__all__ = ["load_checkpoint", "load_dlrm_state_dict", "load_torchrec_state_dict"]

_DLRM = (re.compile(r"emb_l\.(\d+)\.weight"), re.compile(r"(bot|top)_l\.(\d+)\.(weight|bias)"))
_TORCHREC_TABLE = re.compile(r"sparse_arch\.embedding_bag_collection\.embedding_bags\.([^.]+)\.weight")
_TORCHREC_DENSE = re.compile(r"dense_arch\.model\._mlp\.(\d+)\._linear\.(weight|bias)")
_TORCHREC_OVER = re.compile(r"over_arch\.model\.0\._mlp\.(\d+)\._linear\.(weight|bias)")
_TORCHREC_LAST = re.compile(r"over_arch\.model\.1\.(weight|bias)")


def load_checkpoint(path: str | Path, lookups: int | Sequence[int] = 1, **kw: Any) -> RecModel:
    """Read a file saved with ``torch.save``: a state_dict, or a dictionary that holds one. The kind is told by its keys.

    Only tensors and plain containers are unpickled (``weights_only``). A truncated or foreign file raises
    :class:`DataError`. ``kw`` as for the state_dict loaders.
    """
    try:
        sd = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # the unpickler fails in its own ways on foreign bytes (IndexError, KeyError, ...)
        why = str(e).partition("\n")[0] or type(e).__name__
        raise DataError("path", str(path), f"not a complete checkpoint of tensors: {why}") from e
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(sd, Mapping) and isinstance(sd.get(key), Mapping):
            sd = sd[key]
            break
    if not isinstance(sd, Mapping) or not sd or not all(isinstance(v, Tensor) for v in sd.values()):
        raise DataError("path", str(path), "must hold a state_dict of tensors")
    sd = {re.sub(r"^(module|model)\.(?=emb_l|bot_l|top_l|sparse_arch|dense_arch|over_arch|inter_arch)", "", k): v
          for k, v in sd.items()}
    torchrec = any(k.startswith(("sparse_arch.", "over_arch.")) for k in sd)
    return (load_torchrec_state_dict if torchrec else load_dlrm_state_dict)(sd, lookups, **kw)


def load_dlrm_state_dict(sd: Mapping[str, Tensor], lookups: int | Sequence[int] = 1, *, interaction: str | None = None,
                         name: str = "dlrm", format: str = "fp32") -> RecModel:
    """A model from facebookresearch/dlrm's state_dict (``emb_l.N.weight``, ``bot_l.{0,2,..}``, ``top_l.{0,2,..}``).

    The interaction follows from the shapes; where both fit, ``interaction`` must say "cat" or "dot". DLRM's sigmoid after
    the last layer is left out: the model returns logits. ``lookups``: largest bag, of all tables or of each.
    """
    for key in sd:
        if not any(p.fullmatch(key) for p in _DLRM):
            raise ModelError(key, _shape(sd[key]), "an operator this device does not have (QR, mixed-dimension and "
                             "weighted embeddings of DLRM are not supported)")
    ids = sorted(int(m[1]) for m in map(_DLRM[0].fullmatch, sd) if m)
    if ids != list(range(len(ids))) or not ids:
        raise ModelError("emb_l.N.weight", ids, "tables must be numbered 0, 1, 2, ...")
    tables = [sd[f"emb_l.{i}.weight"] for i in ids]
    table_keys = [f"emb_l.{i}.weight" for i in ids]
    bottom, top = (_layers(sd, lambda n, p=p: f"{p}_l.{n}", step=2) for p in ("bot", "top"))
    return _assemble(name, table_keys, tables, bottom, top, lookups, interaction, format, upper=False)


def load_torchrec_state_dict(sd: Mapping[str, Tensor], lookups: int | Sequence[int] = 1, *,
                             interaction: str | None = None, tables: Sequence[str] | None = None,
                             name: str = "torchrec-dlrm", format: str = "fp32") -> RecModel:
    """A model from torchrec's DLRM state_dict. ``tables``: table names in feature order (default: the state_dict's order).

    torchrec concatenates the upper triangle of the interactions (i < j, row-major); the columns of the first top layer are
    permuted to this project's lower triangle. MLPerf's DLRM-DCNv2 (cross layers) raises :class:`ModelError`.
    """
    patterns = (_TORCHREC_TABLE, _TORCHREC_DENSE, _TORCHREC_OVER, _TORCHREC_LAST)
    for key in sd:
        if "crossnet" in key or key.startswith("inter_arch."):
            raise ModelError(key, _shape(sd[key]), "cross layers (DLRM-DCNv2) or learned interactions cannot be done "
                             "exactly; only concatenation and dot-product interaction are supported")
        if not any(p.fullmatch(key) for p in patterns):
            raise ModelError(key, _shape(sd[key]), "not a parameter of torchrec's DLRM")
    found = {m[1]: key for key in sd if (m := _TORCHREC_TABLE.fullmatch(key))}
    order = list(found) if tables is None else list(tables)
    if sorted(order) != sorted(found) or not order:
        raise ModelError("tables", order, f"must name every table of the state_dict once: {sorted(found)}")
    bottom = _layers(sd, lambda n: f"dense_arch.model._mlp.{n}._linear", step=1)
    top = _layers(sd, lambda n: f"over_arch.model.0._mlp.{n}._linear", step=1)
    for suffix in ("weight", "bias"):
        _need(sd, f"over_arch.model.1.{suffix}")
    top.append(("over_arch.model.1", sd["over_arch.model.1.weight"], sd["over_arch.model.1.bias"]))
    keys = [found[t] for t in order]
    return _assemble(name, keys, [sd[k] for k in keys], bottom, top, lookups, interaction, format, upper=True)


def _shape(v: Any) -> Any:
    return tuple(v.shape) if isinstance(v, Tensor) else v


def _need(sd: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in sd:
        raise ModelError(key, None, "missing from the state_dict")
    return sd[key]


def _layers(sd: Mapping[str, Tensor], key: Callable[[Any], str], step: int) -> list[tuple[str, Tensor, Tensor]]:
    """(key, weight, bias) of layers 0, step, 2 step, ...; every numbered key must belong to one of them."""
    pattern = re.escape(key("\0")).replace(re.escape("\0"), r"(\d+)") + r"\.(?:weight|bias)"
    numbers = sorted({int(m[1]) for k in sd if (m := re.fullmatch(pattern, k))})
    if numbers != list(range(0, step * len(numbers), step)):
        raise ModelError(key("N"), numbers, f"layers must be numbered 0, {step}, {2 * step}, ...")
    return [(key(n), _need(sd, key(n) + ".weight"), _need(sd, key(n) + ".bias")) for n in numbers]


def _assemble(name: str, table_keys: list[str], tables: list[Tensor], bottom: list[tuple[str, Tensor, Tensor]],
              top: list[tuple[str, Tensor, Tensor]], lookups: int | Sequence[int], interaction: str | None, format: str,
              *, upper: bool) -> RecModel:
    for key, t in zip(table_keys, tables, strict=True):
        _check_tensor(key, t, 2)
    for layers in (bottom, top):
        for i, (key, w, b) in enumerate(layers):
            _check_tensor(key + ".weight", w, 2)
            _check_tensor(key + ".bias", b, 1)
            if b.shape[0] != w.shape[0]:
                raise ModelError(key + ".bias", _shape(b), f"must be [{w.shape[0]}], like its weight's rows")
            if i and w.shape[1] != layers[i - 1][1].shape[0]:
                raise ModelError(key + ".weight", _shape(w), f"must have {layers[i - 1][1].shape[0]} columns, the outputs "
                                 f"of {layers[i - 1][0]}")
    if not top:
        raise ModelError("top MLP", 0, "the state_dict holds no top layers")
    if not bottom:
        raise ModelError("bottom MLP", 0, "the state_dict holds no bottom layers")
    per_table = [lookups] * len(tables) if isinstance(lookups, int) else list(lookups)
    if len(per_table) != len(tables):
        raise ModelError("lookups", per_table, f"must be one number or one per table ({len(tables)})")

    first_key, first, _ = top[0]
    kind = _interaction(first_key, first.shape[1], bottom[-1][1].shape[0], [t.shape[1] for t in tables], interaction)
    shapes = tuple(TableShape(t.shape[0], t.shape[1], n, "sum", format) for t, n in zip(tables, per_table, strict=True))
    spec = ModelSpec(name, shapes, bottom[0][1].shape[1], tuple(w.shape[0] for _, w, _ in bottom),
                     tuple(w.shape[0] for _, w, _ in top), kind)
    model = RecModel(spec)
    values = {f"embeddings.{i}.weight": t for i, t in enumerate(tables)}
    for prefix, layers in (("bot", bottom), ("top", top)):
        for i, (_, w, b) in enumerate(layers):
            if upper and kind == "dot" and prefix == "top" and i == 0:
                w = w[:, _upper_to_lower(bottom[-1][1].shape[0], len(tables) + 1)]
            values |= {f"linears.{prefix}{i}.weight": w, f"linears.{prefix}{i}.bias": b}
    model.load_state_dict(values)
    return model


def _check_tensor(key: str, t: Tensor, dims: int) -> None:
    if t.dim() != dims or not t.numel():
        raise ModelError(key, _shape(t), f"must have {dims} dimensions, none of them 0")
    if not t.is_floating_point():
        raise ModelError(key, str(t.dtype), "must be floating point")
    bad = (~torch.isfinite(t)).nonzero()
    if len(bad):
        raise DataError(f"{key}{bad[0].tolist()}", float(t[tuple(bad[0])]), "must be finite")


def _interaction(key: str, columns: int, dense: int, dims: list[int], wanted: str | None) -> str:
    """The interaction that gives the first top layer its ``columns``."""
    features = len(dims) + 1
    sizes = {"cat": dense + sum(dims)}
    if set(dims) == {dense}:
        sizes["dot"] = dense + features * (features - 1) // 2
        if columns == dense + features * (features + 1) // 2 and columns not in sizes.values():
            raise ModelError(f"{key}.weight", columns, "the interaction includes the diagonal (arch-interaction-itself), "
                             "which is not supported")
    fits = [k for k, n in sizes.items() if n == columns]
    if wanted is not None:
        if wanted not in fits:
            raise ModelError("interaction", wanted, f"{key}.weight has {columns} columns, which fits {fits or 'none'} "
                             f"of {sizes}")
        return wanted
    if len(fits) != 1:
        limit = f"must be one of {sizes} (bottom output {dense}, table dims {dims})"
        raise ModelError(f"{key}.weight columns" if not fits else "interaction", columns if not fits else None,
                         limit if not fits else f"{columns} columns fit both cat and dot: say which")
    return fits[0]


def _upper_to_lower(dense: int, features: int) -> Tensor:
    """Column order: where in [dense, upper triangle row-major] each column of [dense, lower triangle row-major] is."""
    upper = {(int(i), int(j)): n for n, (i, j) in enumerate(torch.triu_indices(features, features, 1).T)}
    pairs = torch.tril_indices(features, features, -1).T
    return torch.tensor([*range(dense), *(dense + upper[int(j), int(i)] for i, j in pairs)])
