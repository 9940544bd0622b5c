"""The safetensors format: an 8-byte length, a JSON table of names, types, shapes and places, then the bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from ..contract import DataError

__all__ = ["is_safetensors", "read_safetensors"]

_LENGTH = 8
_LONGEST_HEADER = 100_000_000
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins with ``head`` (9 bytes or more) is one."""
    return len(head) > _LENGTH and head[_LENGTH : _LENGTH + 1] == b"{" and _header_bytes(head) <= size - _LENGTH


def _header_bytes(raw: bytes) -> int:
    return int.from_bytes(raw[:_LENGTH], "little")


def read_safetensors(raw: bytes) -> dict[str, torch.Tensor]:
    """Tensors by name. Raises :class:`DataError` for a damaged file: the places must cover the bytes without a gap. The
    format has no checksum, so a flipped bit in a number shows only if it makes the number infinite or NaN."""
    size = _header_bytes(raw)
    if size > _LONGEST_HEADER:
        raise DataError("header length", size, f"must be at most {_LONGEST_HEADER}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({k for k, _ in pairs}) != len(pairs):
            raise DataError("header", [k for k, _ in pairs], "must hold each name once")
        return dict(pairs)

    try:
        header = json.loads(raw[_LENGTH : _LENGTH + size], object_pairs_hook=once)
    except DataError:
        raise
    except (ValueError, RecursionError) as e:
        raise DataError("header", raw[_LENGTH : _LENGTH + 16], f"not valid JSON: {e}") from e
    if not isinstance(header, dict):
        raise DataError("header", type(header).__name__, "must be a table of tensors")
    header.pop("__metadata__", None)
    data, end, tensors = raw[_LENGTH + size :], 0, {}
    for key, entry in sorted(header.items(), key=lambda item: _place(*item)):
        begin, stop = _place(key, entry)
        if begin != end:
            raise DataError(f"{key} data_offsets", [begin, stop], f"must begin at byte {end}, where the last ends")
        tensors[key], end = _tensor(key, entry, data[begin:stop]), stop
    if end != len(data):
        raise DataError("bytes of tensors", len(data), f"must be {end}")
    return {k: tensors[k] for k in header}


def _place(key: str, entry: Any) -> tuple[int, int]:
    """(first byte, end) of an entry."""
    at = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(at, list) and len(at) == 2 and all(type(v) is int for v in at) and 0 <= at[0] <= at[1]):
        raise DataError(f"{key} data_offsets", at, "must be two byte positions")
    return at[0], at[1]


def _tensor(key: str, entry: dict[str, Any], data: bytes) -> torch.Tensor:
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise DataError(f"{key} dtype", kind, f"must be one of {sorted(_TYPES)}")
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        raise DataError(f"{key} shape", shape, "must be a list of sizes")
    want = math.prod(shape) * _TYPES[kind].itemsize
    if want != len(data):
        raise DataError(f"{key} bytes", len(data), f"must be {want} for {kind} of shape {shape}")
    return torch.frombuffer(bytearray(data), dtype=_TYPES[kind]).reshape(shape) if data else torch.empty(
        shape, dtype=_TYPES[kind])
