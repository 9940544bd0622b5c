"""How the loops are compiled, and where what was compiled is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearflash.cache import cache_dir, sources_digest
from numba import config, njit

__all__ = ["compiled"]

# numba asks for a function anew only when its own file changes, not when one that it calls does: a folder for each state of
# the sources.
_FOLDER = str(cache_dir() / "timing" / sources_digest("nearflash_sim.timing.loops"))


def compiled(function: Callable[..., Any]) -> Any:
    """``function``, compiled at its first call, or taken from the cache."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _FOLDER
    try:
        # Most arguments are arrays. References to them aren't counted, since nothing here makes one (8 times the speed), and
        # calls that would hand them on are inlined (2.5 times more).
        options: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "forceinline": True}
        return njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = before
