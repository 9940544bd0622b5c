"""Types of plain data (TOML, JSON) against the fields of a dataclass: nothing is converted, nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from .errors import LimitError

__all__ = ["check_fields", "check_table", "tuples"]

LONGEST_NAME = 200


def _integer(v: Any) -> bool:
    return isinstance(v, int) and not isinstance(v, bool) and -(1 << 63) <= v < 1 << 63


def _number(v: Any) -> bool:
    return _integer(v) or (isinstance(v, float) and math.isfinite(v))


def _text(v: Any) -> bool:
    return isinstance(v, str) and v.isprintable() and len(v) <= LONGEST_NAME


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_integer, "an integer"),
    "float": (_number, "a finite number"),
    "str": (_text, f"text of at most {LONGEST_NAME} printable characters"),
    "bool": (lambda v: isinstance(v, bool), "true or false"),
}


def check_fields(cls: Any, values: Mapping[str, Any], prefix: str, error: type[LimitError]) -> None:
    """Raise ``error`` for a value whose type is not that of its field in dataclass ``cls``: int, float, str, bool, or a
    tuple of them, or None where the field may be. Fields of other types are left to the caller. ``prefix`` goes before a
    field's name in messages."""
    for f in fields(cls):
        if f.name not in values:
            continue
        v, kind = values[f.name], str(f.type).removesuffix(" | None")
        if v is None and kind != str(f.type):
            continue
        if kind in _KINDS:
            ok, what = _KINDS[kind]
            if not ok(v):
                raise error(prefix + f.name, v, f"must be {what}")
        elif kind.startswith("tuple[") and kind[6:].removesuffix(", ...]") in _KINDS:
            ok, what = _KINDS[kind[6:].removesuffix(", ...]")]
            if not isinstance(v, tuple) or not all(map(ok, v)):
                raise error(prefix + f.name, v, f"must be a list, each entry {what}")


def check_table(cls: Any, d: Any, name: str, error: type[LimitError], extra: frozenset[str] = frozenset()
                ) -> dict[str, Any]:
    """``d`` if it is a table (a dict) of fields of dataclass ``cls`` (or of ``extra``) with every required one, each of its
    type once :func:`tuples` has been applied; raises ``error`` otherwise. ``name``: of the table; empty: the file."""
    prefix = f"{name}." if name else ""
    if not isinstance(d, dict):
        raise error(name or "file", d, "must be a table of named values")
    known = {f.name for f in fields(cls)} | extra
    for k in d:
        if k not in known:
            raise error(f"{prefix}{k}", d[k], f"unknown field; known: {sorted(known)}")
    for f in fields(cls):
        if f.name not in d and f.default is MISSING and f.default_factory is MISSING:
            raise error(prefix + f.name, None, "missing")
    out = tuples(d)
    check_fields(cls, out, prefix, error)
    return out


def tuples(d: Mapping[str, Any]) -> dict[str, Any]:
    """``d`` with its lists as tuples, which frozen dataclasses hold."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
