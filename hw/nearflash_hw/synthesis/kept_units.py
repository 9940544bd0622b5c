"""Units of a design, kept on disk: a device takes seconds to generate, and reports ask for the same one again."""

from __future__ import annotations

import json
from collections.abc import Callable

from nearflash.cache import cache_dir, cache_entry, digest

from ..sources import gateware_digest
from .netlist import Unit

__all__ = ["kept_units"]

FILE = "units.json"


def kept_units(make: Callable[[], list[Unit]], key: str) -> list[Unit]:
    """``make()``, or what it gave before for the same ``key`` (which names the design and its configuration) and the same
    sources of the gateware."""
    folder = cache_dir() / "units" / digest(key, gateware_digest("place", "builder"))
    with cache_entry(folder) as work:
        if work is not None:
            (work / FILE).write_text(json.dumps([[u.path, u.rtlil] for u in make()]))
    return [Unit(path, rtlil) for path, rtlil in json.loads((folder / FILE).read_text())]
