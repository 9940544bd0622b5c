"""Where the rows of a model's tables went: the index mapping of ``nearflash place``, and what applies it to queries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.arrays import as_array, read_arrays
from ..contract.errors import DataError
from ..contract.reading import reading
from ..whole import whole_file

__all__ = ["Placement"]

_WHAT = "an index mapping of `nearflash place`"
VERSION = 1


@dataclass(frozen=True)
class Placement:
    """``positions[t]``: of each row of table ``t`` its number in the placed table, int32 or int64 [rows], a permutation.
    ``about``: plain data about how it was found. Raises :class:`~nearflash.contract.DataError` for what is no permutation.
    """

    positions: tuple[np.ndarray, ...]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for t, p in enumerate(self.positions):
            if p.ndim != 1 or p.dtype.kind != "i" or not len(p):
                raise DataError(f"positions[{t}]", (str(p.dtype), p.shape), "must be one-dimensional integers, at least one")
            bad = np.flatnonzero((p < 0) | (p >= len(p)))
            if not len(bad):
                bad = np.setdiff1d(np.arange(len(p)), np.unique(p, return_index=True)[1])
            if len(bad):
                raise DataError(f"positions[{t}][{bad[0]}]", int(p[bad[0]]),
                                f"must be each of 0 to {len(p) - 1} once: a permutation of the table's rows")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell mappings apart; a checkpoint placed by this one holds them."""
        h = hashlib.sha256()
        for p in self.positions:
            h.update(len(p).to_bytes(8, "little") + p.astype("<i8").tobytes())
        return h.hexdigest()[:16]

    def check(self, rows: Sequence[int]) -> None:
        """Raises :class:`~nearflash.contract.DataError` unless it is one of tables with so many ``rows``."""
        mine = [len(p) for p in self.positions]
        if mine != list(rows):
            raise DataError("positions", mine, f"must be of the model's tables, with {list(rows)} rows")

    def check_checkpoint(self, digest: str | None) -> None:
        """Raises :class:`~nearflash.contract.DataError` unless a checkpoint whose rows were placed by mapping ``digest``
        (None: by none) was placed by this one."""
        if digest is None:
            raise DataError("placement", self.digest, "the checkpoint's rows were not placed: give the one that `nearflash "
                            "place` wrote with this mapping")
        if digest != self.digest:
            raise DataError("placement", self.digest, f"must be the mapping that the checkpoint was placed by: {digest}")

    def table(self, t: int, rows: np.ndarray) -> np.ndarray:
        """A copy of table ``t`` (``rows`` [rows, ...], in the model's order) in the placed order."""
        out = np.empty_like(rows)
        out[self.positions[t]] = rows
        return out

    def indices(self, t: int, indices: np.ndarray) -> np.ndarray:
        """The placed numbers of rows ``indices`` of table ``t``. Raises :class:`~nearflash.contract.DataError` for a row
        that the table lacks."""
        p = self.positions[t]
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(p):
            at = int(np.flatnonzero((indices < 0) | (indices >= len(p)))[0])
            raise DataError(f"bags[{t}].indices[{at}]", int(indices[at]), f"must be from 0 to {len(p) - 1}")
        return p[indices].astype(np.int64)

    def bags(self, bags: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Queries for the placed tables from queries for the model's: (indices, offsets[, weights]) per table. Tables that
        the mapping lacks raise :class:`~nearflash.contract.DataError`."""
        if len(bags) > len(self.positions):
            raise DataError("bags", len(bags), f"must be of the mapping's tables ({len(self.positions)})")
        return [(self.indices(t, as_array(bag[0])), *bag[1:]) for t, bag in enumerate(bags)]

    def save(self, path: str | Path) -> None:
        """One ``.npz`` file, whole or not at all."""
        arrays: dict[str, Any] = {f"table{t}": p.astype(np.int32) for t, p in enumerate(self.positions)}
        head = {"version": VERSION, "digest": self.digest, **self.about}
        with whole_file(Path(path)) as part, open(part, "wb") as f:
            np.savez_compressed(f, about=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Placement:
        """Read what :meth:`save` wrote. Raises :class:`~nearflash.contract.DataError` naming the file for any other."""
        with reading(path):
            arrays = read_arrays(path, _WHAT)
            with reading(path, _WHAT):
                about = json.loads(arrays.pop("about", np.zeros(0)).tobytes())
            if not isinstance(about, dict) or about.pop("version", None) != VERSION:
                raise DataError("content", "another file", f"not {_WHAT}")
            names = [f"table{t}" for t in range(len(arrays))]
            if sorted(arrays) != sorted(names) or not names:
                raise DataError("tables", sorted(arrays), "must be table0, table1, ...")
            out = cls(tuple(arrays[n] for n in names), about)
            if about.pop("digest", None) != out.digest:
                raise DataError("digest", out.digest, "is not the one that the file was written with")
            return out
