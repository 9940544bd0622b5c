"""SAR despeckling. Importing this package needs NumPy alone: what needs PyTorch, SciPy or rasterio loads on first use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import despeckle as despeckle

__all__ = ["despeckle"]


if "xarray" in sys.modules:  # else it would load it for those who don't use it
    from . import accessor as accessor


def __getattr__(name: str) -> Any:
    """``nearflash.sar.despeckle`` is :func:`nearflash.sar.api.despeckle`, imported on first use."""
    if name == "despeckle":
        from .api import despeckle

        return despeckle
    raise AttributeError(f"module 'nearflash.sar' has no attribute {name!r}")
