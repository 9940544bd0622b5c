"""Despeckling an image in memory: NumPy, masked array, xarray or dask in, the same out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..contract import ConfigError, DataError
from .memory import Options, despeckle_array
from .methods import Method, load_method
from .tiles import TILE

__all__ = ["despeckle"]

Image = TypeVar("Image")


def despeckle(image: Image, *, looks: float | str | np.ndarray = "auto", domain: str | None = None,
              method: str | Method = "base", device: str = "cpu", tile: int = TILE, checkpoint: str | Path | None = None,
              nodata: float | None = None, out_domain: str | None = None, db_scale: float = 1.0, match_mean: str = "none",
              borders: str = "auto", negatives: str = "keep") -> Image:
    """Despeckle an image in memory; the type that comes in comes out.

    ``image``: a NumPy array, real [H, W] or, with ``domain="complex"``, complex [H, W] or real [H, W, 2]; a masked array of
    the same (it keeps its mask and what lies under it); an ``xarray.DataArray``, whose rows and columns are its dimensions y
    and x, latitude and longitude or the like in any order, else its last two, and whose other dimensions (bands, times) are
    done one by one, each with its own looks; or an ``xarray.Dataset``, of which every variable that is an image is done.
    Coordinates, attributes and names are kept; the attributes or encoding ``_FillValue``, ``missing_value`` and ``nodata``
    mark missing pixels. An array of dask's stays lazy: nothing is computed before the result is, its chunks overlap as far
    as the method looks, and its scale and looks are those of a sample.

    ``looks``: number of looks, "auto", or an array of them that fits the image. ``domain``: amplitude, intensity, db or
    complex; None goes by the rule of :mod:`nearflash.sar.choose`: what ``units``, ``long_name`` or the name say, amplitude
    for unsigned whole numbers, else the values' own statistics, which decide or refuse. ``out_domain``: default that of the
    input, amplitude for complex. ``method``: a name, or what :func:`nearflash.sar.methods.load_method` made of one, which
    spares many images the loading. ``tile``, ``match_mean``: see :func:`nearflash.sar.scene.despeckle_stream`.
    ``borders``, ``negatives``: see :func:`nearflash.sar.io.open_scene`. What was decided without being told (a domain by
    statistics, fills, borders) is said in a warning.

    Returns float64 for float64, else float32; NaN and ``nodata`` pixels keep their value (NaN for complex input).

    Raises :class:`~nearflash.contract.ConfigError` for an unknown setting, :class:`~nearflash.contract.DataError` for wrong
    shapes, negative amplitudes, infinite values and images without a valid pixel,
    :class:`~nearflash.sar.choose.DomainError` where nothing tells the domain.
    """
    if isinstance(looks, (list, tuple)) or hasattr(looks, "dims"):
        looks = np.asarray(looks)
    if isinstance(method, Method):
        if checkpoint is not None or device != "cpu":
            raise ConfigError("method", method.name, "a name, where checkpoint or device are given: this one is loaded")
        run = method
    elif device == "fabric":
        raise ConfigError("device", device, "must be cpu, cuda or fabric-model here; a device has to be opened and closed: "
                          "method=load_method(name, device=\"fabric\")")
    else:
        run = load_method(method, device=device, checkpoint=None if checkpoint is None else Path(checkpoint))
    options = Options(run, looks, domain, out_domain, tile, nodata, db_scale, match_mean, borders, negatives)
    if isinstance(image, np.ndarray):
        return _array(image, options)  # type: ignore[return-value]
    if hasattr(image, "dims") and hasattr(image, "transpose"):
        from .labelled import despeckle_dataset, despeckle_labelled

        return despeckle_dataset(image, options) if hasattr(image, "data_vars") else despeckle_labelled(image, options)
    raise DataError("image", type(image).__name__, "must be a NumPy array, an xarray.DataArray or an xarray.Dataset")


def _array(image: np.ndarray, options: Options) -> np.ndarray:
    if image.ndim < 2 or 0 in image.shape:
        raise DataError("image shape", tuple(image.shape), "must have at least one row and one column")
    pairs = options.domain == "complex" and image.dtype.kind != "c"
    if image.ndim != (3 if pairs else 2):
        raise DataError("image shape", tuple(image.shape), f"must be [H, W] for domain {options.domain or 'unknown'}, or "
                        "[H, W, 2] for domain complex")
    masked: Any = image if isinstance(image, np.ma.MaskedArray) else None
    if masked is None:
        return despeckle_array(image[None], options)[0]
    mask = np.ma.getmaskarray(masked)
    missing = mask.any(axis=2) if pairs else mask
    result = despeckle_array(np.asarray(masked.data)[None], options, missing[None])[0]
    return np.ma.MaskedArray(result, mask=missing, fill_value=masked.fill_value if masked.dtype.kind == "f" else None)
