"""The gateware's own sources, as part of the keys under which what comes of them is kept."""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache

from nearflash.cache import digest, sources_digest

__all__ = ["gateware_digest"]


@lru_cache
def gateware_digest(*without: str) -> str:
    """Of all that turns a configuration into a netlist: contract, reference models, this package but for the folders
    ``without``, and Amaranth's version."""
    sources = sources_digest("nearflash.contract", "nearflash.reference", "nearflash_hw", without=without)
    return digest(importlib.metadata.version("amaranth"), sources)
