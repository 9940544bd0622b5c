"""Tools of the hardware packages, found by name: this package imports neither gateware nor simulator."""

from __future__ import annotations

from typing import Any

from .contract import NearflashError

__all__ = ["load_tool"]

GROUP = "nearflash.tools"


def load_tool(name: str) -> Any:
    """What is registered as ``name`` under the entry points :data:`GROUP`. Raises :class:`NearflashError` without it."""
    from importlib.metadata import entry_points  # slow to import, and --help loads no tool

    found = {e.name: e for e in entry_points(group=GROUP)}
    if name not in found:
        raise NearflashError(f"tool {name!r} isn't installed: pip install 'nearflash[all]' (installed: {sorted(found)})")
    try:
        return found[name].load()
    except ImportError as e:
        raise NearflashError(f"tool {name!r} can't be loaded: {e}; pip install 'nearflash[all]'") from e
