"""Despeckling an image in memory: NumPy or xarray in, the same out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..contract import ConfigError, DataError
from .domain import check_domain, check_scale, from_intensity
from .io.base import Scene, SceneInfo, Writer
from .methods import Method, load_method
from .scene import check_looks, despeckle_stream, require_valid

__all__ = ["despeckle"]

Image = TypeVar("Image")


class _ArrayScene(Scene):
    def __init__(self, values: np.ndarray, domain: str, nodata: float | None, db_scale: float):
        if values.ndim < 2 or 0 in values.shape:
            raise DataError("image shape", tuple(values.shape), "must have at least one row and one column")
        self.values = values
        rows, columns = values.shape[:2]
        self.info = SceneInfo(Path("image"), (rows, columns), 1, domain, str(values.dtype), nodata, db_scale)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.values[rows]

    def close(self) -> None:
        """The array stays the caller's."""


class _ArrayWriter(Writer):
    def __init__(self, shape: tuple[int, int]):
        self.intensity = np.empty(shape, np.float32)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.intensity[row : row + len(intensity)] = intensity


def despeckle(image: Image, *, looks: float | str = "auto", domain: str = "intensity", method: str | Method = "base",
              device: str = "cpu", tile: int = 512, checkpoint: str | Path | None = None, nodata: float | None = None,
              out_domain: str | None = None, db_scale: float = 1.0, match_mean: str = "none") -> Image:
    """Despeckle an image in memory; the type that comes in comes out.

    ``image``: a NumPy array, real [H, W] or, with ``domain="complex"``, complex [H, W] or real [H, W, 2]; or an
    ``xarray.DataArray`` whose last two dimensions are rows and columns (those named y and x if there are both); its other
    dimensions (bands, times) are done one by one, each with its own looks, and its coordinates, attributes and name are
    kept. An attribute ``_FillValue`` is its nodata. ``looks``: number of looks, or "auto". ``domain``: amplitude,
    intensity, db or complex. ``out_domain``: default that of the input, amplitude for complex. ``method``: a name, or what
    :func:`nearflash.sar.methods.load_method` made of one, which spares many images the loading. ``tile``, ``match_mean``:
    see :func:`nearflash.sar.scene.despeckle_stream`.

    Returns float64 for float64, else float32; NaN and ``nodata`` pixels keep their value (NaN for complex and integer
    input).

    Raises :class:`~nearflash.contract.ConfigError` for an unknown setting, :class:`~nearflash.contract.DataError` for wrong
    shapes, negative or infinite values and images without a valid pixel.
    """
    check_domain(domain)
    check_scale(db_scale)
    check_looks(looks)
    if out_domain is not None:
        check_domain(out_domain, "out_domain", output=True)
    if isinstance(method, Method):
        if checkpoint is not None or device != "cpu":
            raise ConfigError("method", method.name, "a name, where checkpoint or device are given: this one is loaded")
        run = method
    else:
        run = load_method(method, device=device, checkpoint=None if checkpoint is None else Path(checkpoint))

    def one(values: np.ndarray, nodata: float | None) -> np.ndarray:
        return _one(values, run, looks, domain, out_domain, tile, nodata, db_scale, match_mean)

    if isinstance(image, np.ndarray):
        return one(image, nodata)  # type: ignore[return-value]
    if hasattr(image, "dims") and hasattr(image, "transpose") and hasattr(image, "values"):
        return _each_plane(image, one, nodata)
    raise DataError("image", type(image).__name__, "must be a NumPy array or an xarray.DataArray")


def _one(values: np.ndarray, method: Method, looks: float | str, domain: str, out_domain: str | None, tile: int,
         nodata: float | None, db_scale: float, match_mean: str) -> np.ndarray:
    scene = _ArrayScene(values, domain, nodata, db_scale)
    if domain != "complex" and values.ndim != 2:
        raise DataError("image shape", tuple(values.shape), f"must be [H, W] for domain {domain}")
    writer = _ArrayWriter(scene.shape)
    report = despeckle_stream(scene, writer, method, looks, tile=tile, match_mean=match_mean)
    require_valid([report], "image")
    result = from_intensity(writer.intensity, out_domain or ("amplitude" if domain == "complex" else domain),
                            db_scale=db_scale)
    if values.dtype.kind == "f" and values.ndim == 2:
        result = result.astype(np.float64 if values.dtype == np.float64 else np.float32)
        missing = np.isnan(writer.intensity)
        result[missing] = values[missing]
    return result


def _each_plane(image: Any, one: Any, nodata: float | None) -> Any:
    rows, columns = ("y", "x") if {"y", "x"} <= set(image.dims) else image.dims[-2:]
    if nodata is None:
        nodata = image.attrs.get("_FillValue")
    ordered = image.transpose(..., rows, columns)
    values = np.asarray(ordered.values)
    if values.ndim == 2:
        result = one(values, nodata)
    else:
        planes = [one(plane, nodata) for plane in values.reshape(-1, *values.shape[-2:])]
        result = np.stack(planes).reshape(values.shape)
    return ordered.copy(data=result).transpose(*image.dims)
