"""nearflash: inference next to the flash. Importing this package needs NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import open as open

__version__ = "0.1.0"
__all__ = ["open"]


def __getattr__(name: str) -> Any:
    """``nearflash.open`` is :func:`nearflash.runtime.open`, imported on first use so that the contract stays light."""
    if name == "open":
        from .runtime import open

        return open
    raise AttributeError(f"module 'nearflash' has no attribute {name!r}")
