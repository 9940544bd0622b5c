"""``--placement``: the index mapping that `nearflash place` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..contract import DataError
from ..contract.reading import reading
from ..runtime.placement import Placement

__all__ = ["load_placement"]


def load_placement(path: Path | None, digest: str | None, rows: Sequence[int], *, contents: bool = True
                   ) -> Placement | None:
    """The index mapping in ``path`` for tables of so many ``rows``, of a checkpoint whose rows were placed by the mapping
    ``digest`` (None: by none). Without ``contents`` rows that weren't placed may lie in any order: nobody reads them.
    Raises :class:`~nearflash.contract.DataError` where one is there without the other."""
    if path is None:
        if digest is not None:
            raise DataError("--placement", None, f"must be given: the checkpoint's rows were placed by mapping {digest}")
        return None
    found = Placement.load(path)
    with reading(path):
        found.check(rows)
        if contents or digest is not None:
            found.check_checkpoint(digest)
    return found
