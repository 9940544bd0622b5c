"""``DataArray.nearflash.despeckle()`` and ``Dataset.nearflash.despeckle()``: there once this module is imported.

``import nearflash.sar`` imports it where xarray is loaded already.
"""

from __future__ import annotations

from typing import Any

import xarray

__all__ = ["NearflashAccessor"]


@xarray.register_dataset_accessor("nearflash")
@xarray.register_dataarray_accessor("nearflash")
class NearflashAccessor:
    """What nearflash does with an xarray object."""

    def __init__(self, image: Any):
        self._image = image

    def despeckle(self, **options: Any) -> Any:
        """:func:`nearflash.sar.despeckle` of this object; the same arguments and errors."""
        from .api import despeckle

        return despeckle(self._image, **options)
