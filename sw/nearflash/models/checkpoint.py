"""The parameters in a checkpoint's file: tensors that fp32 holds exactly, under the names the model itself gives them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract import DataError, ModelError
from ..contract.reading import check_zip, reading
from .plain_numpy import PlainArray, safe_names
from .safetensors import is_safetensors, read_safetensors

__all__ = ["exact_parameters", "read_parameters", "without_wrappers"]

ROOTS = ("emb_l", "bot_l", "top_l", "v_W_l", "sparse_arch", "dense_arch", "over_arch", "inter_arch")
#: What DistributedDataParallel, torch.compile, torchrec's DistributedModelParallel, FSDP and activation checkpointing put
#: into names, at any depth.
WRAPPERS = {"module", "_orig_mod", "_dmp_wrapped_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_HOLDERS = ("state_dict", "model_state_dict", "model", "module")  # of a state_dict, in a training loop's dictionary
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # the second: torch.save before version 1.6
_WHAT = "a complete checkpoint of tensors"
_GLOBAL = re.compile(r"(?:Unsupported global: GLOBAL|Cannot use|Trying to load unsupported GLOBAL|instantiate) ([\w.]+)")


def read_parameters(path: str | Path, round_to_fp32: bool = False) -> dict[str, Tensor]:
    """The state_dict in a file of ``torch.save`` (or safetensors), alone or in a dictionary, without wrappers' prefixes.

    Only tensors, plain containers and stand-ins for NumPy's objects are unpickled; a zip file's checksums are compared.
    Raises :class:`DataError` naming the file, and the parameter under its name there. ``round_to_fp32`` as for
    :func:`exact_parameters`.
    """
    with reading(path):
        held = _load(Path(path))
        for _ in range(len(_HOLDERS)):
            inner = next((held[k] for k in _HOLDERS if isinstance(held.get(k), Mapping)), None
                         ) if isinstance(held, Mapping) else None
            held = held if inner is None else inner
        if not isinstance(held, Mapping) or not held:
            raise DataError("content", type(held).__name__, "must hold a state_dict of tensors")
        tensors: dict[str, Tensor] = {}
        for key, v in held.items():
            if not isinstance(key, str):
                raise DataError("key", key, "a state_dict's keys must be names")
            tensors[key] = v.tensor(key) if isinstance(v, PlainArray) else v
        return without_wrappers(exact_parameters(tensors, round_to_fp32))


def _load(path: Path) -> Any:
    with open(path, "rb") as f:
        head = f.read(16)
    if is_safetensors(head, path.stat().st_size):
        return read_safetensors(path.read_bytes())
    if head.startswith(_ZIP):
        check_zip(path, _WHAT)
    elif not head.startswith(_PICKLE):
        raise DataError("content", head, f"not {_WHAT}: neither torch.save's format nor safetensors")
    with reading(path, _WHAT), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about formats; what matters is an error here
        try:
            with torch.serialization.safe_globals(safe_names()):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as e:
            text = str(e)
            if "torch.distributed" in text:
                raise ModelError("content", "sharded tensors", "one rank of a sharded checkpoint: gather it into one "
                                 "state_dict first") from e
            if found := _GLOBAL.search(text):
                raise DataError("content", found[1], "a Python object that is not loaded: save the state_dict alone") from e
            raise


def exact_parameters(sd: Mapping[str, Any], round_to_fp32: bool = False) -> dict[str, Tensor]:
    """``sd`` with float64 as float32; all else as it is. Raises :class:`ModelError` for what is no dense tensor of float32,
    float16, bfloat16 or float64, and :class:`DataError` for a value that is not finite, or that fp32 doesn't hold exactly
    (with ``round_to_fp32``: that is too large for fp32)."""
    return {key: _exact(key, t, round_to_fp32) for key, t in sd.items()}


def _exact(key: str, t: Any, round_to_fp32: bool) -> Tensor:
    if not isinstance(t, Tensor):
        raise DataError(key, type(t).__name__, "must be a tensor, as all of a state_dict's values")
    if t.layout != torch.strided or t.is_quantized or t.device.type != "cpu" or t.is_nested:
        kind = "quantized" if t.is_quantized else "nested" if t.is_nested else str(t.layout).removeprefix("torch.")
        raise ModelError(key, f"a {kind} tensor on {t.device.type}", "must be a dense tensor: its values in rows")
    if t.dtype not in _DTYPES:
        raise ModelError(key, str(t.dtype), f"must be floating point: {', '.join(map(str, _DTYPES))}")
    if t.numel() * t.element_size() > t.untyped_storage().nbytes():
        raise ModelError(key, tuple(t.shape), f"is expanded from {t.untyped_storage().nbytes()} bytes: save a copy")
    t = t.detach()
    _refuse(key, t, ~torch.isfinite(t), "must be finite")
    if t.dtype != torch.float64:
        return t
    near = t.float()
    _refuse(key, t, ~torch.isfinite(near), "must be at most 3.4028e38 in magnitude, as fp32 is")
    if not round_to_fp32:
        _refuse(key, t, near.double() != t, "is float64 that fp32 does not hold exactly; --round-to-fp32 rounds it")
    return near


def _refuse(key: str, t: Tensor, bad: Tensor, limit: str) -> None:
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise DataError(f"{key}{list(at)}", float(t[at]), limit)


def without_wrappers(sd: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``sd`` under the model's own names: wrappers' parts go wherever they are, and what comes before the model's first part
    (:data:`ROOTS`) if it is the same everywhere. Raises :class:`ModelError` when two names become one or several models are
    in the file."""
    out: dict[str, Tensor] = {}
    first: dict[str, str] = {}  # a key of each prefix
    for key, t in sd.items():
        parts = [p for p in key.split(".") if p not in WRAPPERS]
        root = next((i for i, p in enumerate(parts) if p in ROOTS), None)
        if root is not None:
            first.setdefault(".".join(parts[:root]), key)
        name = key if root is None else ".".join(parts[root:])
        if name in out or len(first) > 1:
            raise ModelError(key, list(first.values()), "a state_dict of more than one model: save one")
        out[name] = t
    return out
