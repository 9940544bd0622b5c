"""Units of a design, kept on disk: a device takes seconds to generate, and reports ask for the same one again."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from functools import lru_cache

from nearflash.cache import cache_dir, cache_entry, digest, sources_digest

from .netlist import Unit

__all__ = ["kept_units"]

FILE = "units.json"


def kept_units(make: Callable[[], list[Unit]], key: str) -> list[Unit]:
    """``make()``, or what it gave before for the same ``key`` (which names the design and its configuration) and the same
    sources of the gateware."""
    folder = cache_dir() / "units" / digest(key, _sources())
    with cache_entry(folder) as work:
        if work is not None:
            (work / FILE).write_text(json.dumps([[u.path, u.rtlil] for u in make()]))
    return [Unit(path, rtlil) for path, rtlil in json.loads((folder / FILE).read_text())]


@lru_cache
def _sources() -> str:
    sources = sources_digest("nearflash.contract", "nearflash.reference", "nearflash_hw", without=("place", "builder"))
    return digest(importlib.metadata.version("amaranth"), sources)
