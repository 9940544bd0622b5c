"""Binds the driver to the device's block of an overlay: ``overlay.nearflash_0.open()``. Found by PYNQ through its
``pynq.lib`` entry points."""

from __future__ import annotations

from typing import Any

from pynq import DefaultIP

__all__ = ["NearflashIP"]


class NearflashIP(DefaultIP):
    """The device's block of registers. Its ``register_map`` has every register and field; :meth:`open` gives the device."""

    bindto = ["nearflash:user:nearflash:1.0"]

    def open(self, overlay: Any, **kw: Any) -> Any:
        """:func:`nearflash.open` on this overlay."""
        import nearflash

        return nearflash.open("pynq", overlay=overlay, **kw)
