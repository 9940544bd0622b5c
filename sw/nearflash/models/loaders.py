"""Real checkpoints to :class:`RecModel`: facebookresearch/dlrm and torchrec's DLRM. Everything a file holds is either
used exactly or refused with its key: nothing is skipped or approximated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract import ModelError
from ..contract.reading import reading
from .checkpoint import exact_parameters, read_parameters, without_wrappers
from .module import RecModel
from .spec import ModelSpec, TableShape

__all__ = ["load_checkpoint", "load_dlrm_state_dict", "load_torchrec_state_dict"]

_DLRM_TABLE = re.compile(r"emb_l\.([0-9]{1,9})\.weight")
_DLRM_LAYER = re.compile(r"(bot|top)_l\.([0-9]{1,9})\.(weight|bias)")
_TORCHREC_TABLE = re.compile(r"sparse_arch\.embedding_bag_collection\.embedding_bags\.([^.]+)\.weight")
_TORCHREC_DENSE = re.compile(r"dense_arch\.model\._mlp\.([0-9]{1,9})\._linear\.(weight|bias)")
_TORCHREC_OVER = re.compile(r"over_arch\.model\.0\._mlp\.([0-9]{1,9})\._linear\.(weight|bias)")
_TORCHREC_LAST = re.compile(r"over_arch\.model\.1\.(weight|bias)")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")

_Layers = list[tuple[str, Tensor, Tensor]]  # (key, weight, bias)


@dataclass(frozen=True)
class _Parts:
    """What a state_dict holds. ``names``: of the tables, in feature order; ``upper``: pairs in torchrec's order."""

    names: tuple[str, ...]
    table_keys: tuple[str, ...]
    tables: list[Tensor]
    bottom: _Layers
    top: _Layers
    upper: bool


def load_checkpoint(path: str | Path, lookups: int | Sequence[int] = 1, *, interaction: str | None = None,
                    tables: Sequence[str] | None = None, format: str | None = None, round_to_fp32: bool = False,
                    name: str | None = None) -> RecModel:
    """Read a file of ``torch.save`` (or safetensors): a state_dict, or a dictionary that holds one. The kind is told by its
    keys, prefixes of wrappers are taken off (:func:`~nearflash.models.checkpoint.read_parameters`).

    ``lookups``: largest bag, of all tables or of each. ``interaction`` ("cat" or "dot") where the shapes fit both.
    ``tables``: torchrec's table names in feature order. ``format`` of the stored rows: default fp16 for float16 tables,
    fp32 for all others. ``round_to_fp32``: round float64 that fp32 doesn't hold, else it is refused.

    Raises :class:`~nearflash.contract.DataError` for a damaged or foreign file and bad values, :class:`ModelError` for what
    can't be done exactly; both name file and key.
    """
    sd = read_parameters(path, round_to_fp32)
    with reading(path):
        if any(k.startswith(("sparse_arch.", "over_arch.", "dense_arch.", "inter_arch.")) for k in sd):
            return _assemble(name or "torchrec-dlrm", _torchrec_parts(sd, tables), lookups, interaction, format)
        if tables is not None:
            raise ModelError("tables", list(tables), "are named in torchrec's checkpoints only: dlrm's are numbered")
        return _assemble(name or "dlrm", _dlrm_parts(sd), lookups, interaction, format)


def load_dlrm_state_dict(sd: Mapping[str, Tensor], lookups: int | Sequence[int] = 1, *, interaction: str | None = None,
                         name: str = "dlrm", format: str | None = None, round_to_fp32: bool = False) -> RecModel:
    """A model from facebookresearch/dlrm's state_dict (``emb_l.N.weight``, ``bot_l.{0,2,..}``, ``top_l.{0,2,..}``).

    The interaction follows from the shapes; where both fit, ``interaction`` must say "cat" or "dot". DLRM's sigmoid after
    the last layer is left out: the model returns logits. Other arguments and errors as for :func:`load_checkpoint`.
    """
    return _assemble(name, _dlrm_parts(without_wrappers(exact_parameters(sd, round_to_fp32))), lookups, interaction, format)


def load_torchrec_state_dict(sd: Mapping[str, Tensor], lookups: int | Sequence[int] = 1, *,
                             interaction: str | None = None, tables: Sequence[str] | None = None,
                             name: str = "torchrec-dlrm", format: str | None = None, round_to_fp32: bool = False
                             ) -> RecModel:
    """A model from torchrec's DLRM state_dict. ``tables``: table names in feature order; without it they must be one prefix
    and a number, and are taken by number, whatever the order of the keys. Other arguments as for :func:`load_checkpoint`.

    torchrec concatenates the upper triangle of the interactions (i < j, row-major); the columns of the first top layer are
    permuted to this project's lower triangle. MLPerf's DLRM-DCNv2 (cross layers) raises :class:`ModelError`.
    """
    parts = _torchrec_parts(without_wrappers(exact_parameters(sd, round_to_fp32)), tables)
    return _assemble(name, parts, lookups, interaction, format)


def _dlrm_parts(sd: Mapping[str, Tensor]) -> _Parts:
    for key in sd:
        if key.startswith("v_W_l."):
            raise ModelError(key, _shape(sd[key]), "weighted pooling with learned weights: the device takes a lookup's "
                             "weight from the query, not from a table beside it")
        if not (_DLRM_TABLE.fullmatch(key) or _DLRM_LAYER.fullmatch(key)):
            raise ModelError(key, _shape(sd[key]), "not a parameter of a DLRM with plain embedding tables (QR and mixed-"
                             "dimension embeddings are operators that this device does not have)")
    ids = sorted(int(m[1]) for m in map(_DLRM_TABLE.fullmatch, sd) if m)
    if ids != list(range(len(ids))) or not ids:
        raise ModelError("emb_l.N.weight", ids, "tables must be numbered 0, 1, 2, ...: one is missing, or this is one "
                         "rank of a sharded checkpoint")
    keys = tuple(f"emb_l.{i}.weight" for i in ids)
    bottom, top = (_layers(sd, lambda n, p=p: f"{p}_l.{n}", step=2) for p in ("bot", "top"))
    return _Parts(tuple(f"emb_l.{i}" for i in ids), keys, [_need(sd, k) for k in keys], bottom, top, upper=False)


def _torchrec_parts(sd: Mapping[str, Tensor], order: Sequence[str] | None) -> _Parts:
    patterns = (_TORCHREC_TABLE, _TORCHREC_DENSE, _TORCHREC_OVER, _TORCHREC_LAST)
    for key in sd:
        if "crossnet" in key or key.startswith("inter_arch."):
            raise ModelError(key, _shape(sd[key]), "cross layers (DLRM-DCNv2) or learned interactions cannot be done "
                             "exactly; only concatenation and dot-product interaction are supported")
        if not any(p.fullmatch(key) for p in patterns):
            raise ModelError(key, _shape(sd[key]), "not a parameter of torchrec's DLRM")
    found = {m[1]: key for key in sd if (m := _TORCHREC_TABLE.fullmatch(key))}
    names = _natural_order(list(found)) if order is None else list(order)
    if sorted(names) != sorted(found) or not names:
        raise ModelError("tables", names, f"must name every table of the state_dict once: {sorted(found)}")
    bottom = _layers(sd, lambda n: f"dense_arch.model._mlp.{n}._linear", step=1)
    top = _layers(sd, lambda n: f"over_arch.model.0._mlp.{n}._linear", step=1)
    last = "over_arch.model.1"
    top.append((last, _need(sd, f"{last}.weight"), _need(sd, f"{last}.bias")))
    keys = tuple(found[t] for t in names)
    return _Parts(tuple(names), keys, [sd[k] for k in keys], bottom, top, upper=True)


def _natural_order(names: list[str]) -> list[str]:
    """Names that are one prefix and a number by number; :class:`ModelError` where only the caller can know the order."""
    parts = [_NUMBERED.fullmatch(n) for n in names]
    numbers = [int(m[2]) for m in parts if m]
    if len(names) == 1 or (all(parts) and len({m[1] for m in parts if m}) == 1 and len(set(numbers)) == len(names)):
        return [n for _, n in sorted(zip(numbers, names, strict=True))] if len(names) > 1 else names
    raise ModelError("tables", names, "are not one prefix and a number: give their feature order, --tables "
                     f"{','.join(names)} in the right order")


def _shape(v: Any) -> Any:
    return tuple(v.shape) if isinstance(v, Tensor) else v


def _need(sd: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in sd:
        raise ModelError(key, None, "missing from the state_dict")
    return sd[key]


def _layers(sd: Mapping[str, Tensor], key: Callable[[Any], str], step: int) -> _Layers:
    """(key, weight, bias) of layers 0, step, 2 step, ...; every numbered key must belong to one of them."""
    pattern = re.escape(key("\0")).replace(re.escape("\0"), r"([0-9]+)") + r"\.(?:weight|bias)"
    numbers = sorted({int(m[1]) for k in sd if (m := re.fullmatch(pattern, k))})
    if numbers != list(range(0, step * len(numbers), step)):
        raise ModelError(key("N"), numbers, f"layers must be numbered 0, {step}, {2 * step}, ...")
    return [(key(n), _need(sd, key(n) + ".weight"), _need(sd, key(n) + ".bias")) for n in numbers]


def _assemble(name: str, p: _Parts, lookups: int | Sequence[int], interaction: str | None, format: str | None) -> RecModel:
    for key, t in zip(p.table_keys, p.tables, strict=True):
        _check_shape(key, t, 2)
        if t.shape[1] % 4:
            raise ModelError(key, _shape(t), "a vector's elements must be a multiple of 4")
    for layers in (p.bottom, p.top):
        for i, (key, w, b) in enumerate(layers):
            _check_shape(key + ".weight", w, 2)
            _check_shape(key + ".bias", b, 1)
            if b.shape[0] != w.shape[0]:
                raise ModelError(key + ".bias", _shape(b), f"must be [{w.shape[0]}], like its weight's rows")
            if i and w.shape[1] != layers[i - 1][1].shape[0]:
                raise ModelError(key + ".weight", _shape(w), f"must have {layers[i - 1][1].shape[0]} columns, the outputs "
                                 f"of {layers[i - 1][0]}")
    if not p.top:
        raise ModelError("top MLP", 0, "the state_dict holds no top layers")
    if not p.bottom:
        raise ModelError("bottom MLP", 0, "the state_dict holds no bottom layers")
    per_table = [lookups] * len(p.tables) if isinstance(lookups, int) else list(lookups)
    if len(per_table) != len(p.tables):
        raise ModelError("lookups", per_table, f"must be one number or one per table ({len(p.tables)})")

    dense = p.bottom[-1][1].shape[0]
    kind = _interaction(p.top[0][0], p.top[0][1].shape[1], dense, [t.shape[1] for t in p.tables], interaction, p.upper)
    shapes = tuple(TableShape(t.shape[0], t.shape[1], n, "sum", format or ("fp16" if t.dtype == torch.float16 else "fp32"))
                   for t, n in zip(p.tables, per_table, strict=True))
    spec = ModelSpec(name, shapes, p.bottom[0][1].shape[1], tuple(w.shape[0] for _, w, _ in p.bottom),
                     tuple(w.shape[0] for _, w, _ in p.top), kind)
    model = RecModel(spec)
    model.table_names = p.names
    values = {f"embeddings.{i}.weight": t for i, t in enumerate(p.tables)}
    for prefix, layers in (("bot", p.bottom), ("top", p.top)):
        for i, (_, w, b) in enumerate(layers):
            if p.upper and kind == "dot" and prefix == "top" and i == 0:
                w = w[:, _upper_to_lower(dense, len(p.tables) + 1)]
            values |= {f"linears.{prefix}{i}.weight": w, f"linears.{prefix}{i}.bias": b}
    model.load_state_dict(values)
    return model


def _check_shape(key: str, t: Tensor, dims: int) -> None:
    if t.dim() != dims or not t.numel():
        raise ModelError(key, _shape(t), f"must have {dims} dimensions, none of them 0")


def _interaction(key: str, columns: int, dense: int, dims: list[int], wanted: str | None, upper: bool) -> str:
    """The interaction that gives the first top layer its ``columns``."""
    if wanted not in (None, "cat", "dot"):
        raise ModelError("interaction", wanted, "must be 'cat' or 'dot'")
    sizes = {"cat": dense + sum(dims)}
    if set(dims) == {dense}:
        sizes["dot"] = _dot_columns(dense, len(dims))
    fits = [k for k, n in sizes.items() if n == columns]
    if not fits:
        raise ModelError(f"{key}.weight columns", columns, f"must be one of {sizes} (bottom output {dense}, table dims "
                         f"{dims}){_likely(columns, dense, dims, upper)}")
    if wanted is not None and wanted not in fits:
        raise ModelError("interaction", wanted, f"{key}.weight has {columns} columns, which fits {fits} of {sizes}")
    if wanted is None and len(fits) > 1:
        raise ModelError("interaction", None, f"{columns} columns of {key}.weight fit both cat and dot: say which, "
                         "--interaction cat or --interaction dot")
    return wanted or fits[0]


def _dot_columns(dense: int, tables: int) -> int:
    return dense + (tables + 1) * tables // 2


def _likely(columns: int, dense: int, dims: list[int], upper: bool) -> str:
    """What would explain a first top layer of ``columns``, as the end of a message."""
    have, dim = len(dims), dims[0]
    most = 2 * have + 64
    counts = {n for n in range(1, most) if dim == dense and _dot_columns(dense, n) == columns}
    if len(set(dims)) == 1 and columns > dense and (columns - dense) % dim == 0 and (columns - dense) // dim < most:
        counts.add((columns - dense) // dim)
    if not counts:
        return ""
    text = f"; it fits {' or '.join(map(str, sorted(counts)))} tables and the file holds {have}"
    if max(counts) < have:
        return text
    text += ": a table is missing, or this is one rank of a sharded checkpoint"
    if upper:
        return text + ", or several features share a table, which is not supported"
    if dim == dense and _dot_columns(dense, have + 1) == columns:
        return text + ", or every feature meets itself too (the diagonal, --arch-interaction-itself), which is not supported"
    return text


def _upper_to_lower(dense: int, features: int) -> Tensor:
    """Column order: where in [dense, upper triangle row-major] each column of [dense, lower triangle row-major] is."""
    upper = {(int(i), int(j)): n for n, (i, j) in enumerate(torch.triu_indices(features, features, 1).T)}
    pairs = torch.tril_indices(features, features, -1).T
    return torch.tensor([*range(dense), *(dense + upper[int(j), int(i)] for i, j in pairs)])
