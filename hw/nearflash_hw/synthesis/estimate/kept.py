"""Features of generated blocks, kept on disk: generating a large kernel takes seconds, and a search looks at hundreds."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from nearflash.cache import cache_dir, digest, sources_digest
from nearflash.whole import whole_file

from .features import Features
from .memory import MemoryShape

__all__ = ["kept"]

ROOMS = ("flash", "controller", "lookup", "place")  # of which an MLP engine uses nothing


def kept(make: Callable[[], Features], *what: Any) -> Features:
    """``make()``, parts of an MLP engine, or what it gave before for the same ``what`` and the same sources of that."""
    file = cache_dir() / "estimates" / f"{digest(_sources(), repr(what))}.json"
    if not file.is_file():
        found = make()
        with whole_file(file) as part:
            part.write_text(json.dumps({"bits": dict(found.bits), "memories": [asdict(m) for m in found.memories],
                                        "multipliers": found.multipliers, "slices": found.slices,
                                        "operand_bits": found.operand_bits}))
        return found
    read = json.loads(file.read_text())
    os.utime(file)  # when it was used last
    return Features(Counter(read["bits"]), [MemoryShape(**m) for m in read["memories"]],
                    [(a, b, signed) for a, b, signed in read["multipliers"]], read["slices"], read["operand_bits"])


@lru_cache
def _sources() -> str:
    sources = sources_digest("nearflash.contract", "nearflash.reference", "nearflash_hw", without=ROOMS)
    return digest(importlib.metadata.version("amaranth"), sources)
