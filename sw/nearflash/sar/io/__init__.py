"""Scenes in files, read and written by rows as intensity: GeoTIFF, COG, ENVI, COSAR and netCDF (rasterio), HDF5 (h5py),
.npy, PNG (Pillow), and Sentinel-1 products.

A reader (raster.py, netcdf.py, hdf5.py, npy.py, png.py, sentinel1.py) gives an array by rows and what its file says of it
(base.py: ``Scene``); what the file leaves open is settled in one place for all (:mod:`nearflash.sar.settle`); a writer gets
an ``Encoding`` from encoding.py.

>>> with open_scene("scene.tif", "amplitude") as scene, open_writer(scene, "clean.tif") as writer:
...     writer.write(scene.read(slice(0, 100)), 0)
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError
from ..domain import check_domain, check_scale
from .base import Scene, SceneInfo, WriteError, Writer, require_new
from .product import CONTAINERS, Image, ProductOptions, images_in, is_container, is_product, is_sentinel1
from .unread import advice

__all__ = ["SUFFIXES", "Image", "ProductOptions", "Scene", "SceneInfo", "WriteError", "Writer", "images_in",
           "is_container", "is_product", "is_sentinel1", "open_scene", "open_writer", "read_array", "read_complex"]

_READERS = {".tif": "raster", ".tiff": "raster", ".npy": "npy", ".png": "png", ".img": "raster", ".cos": "raster"}
_WRITERS = {".tif": "geotiff", ".tiff": "geotiff", ".npy": "npy", ".png": "png"}
SUFFIXES = (*_READERS, *CONTAINERS)


def _format(path: Path, field: str, formats: dict[str, str]) -> str:
    name = formats.get(path.suffix.lower())
    if name is None:
        known, hint = (SUFFIXES, advice(path)) if field == "input" else (tuple(formats), "")
        raise ConfigError(field, str(path), f"must end in one of {', '.join(known)}" + (f": {hint}" if hint else ""))
    return name


def open_scene(path: str | Path, domain: str | None = None, *, nodata: float | None = None, db_scale: float = 1.0,
               borders: str = "auto", negatives: str = "keep", part: str | None = None,
               product: ProductOptions | None = None) -> Scene:
    """Open an image for reading by rows.

    ``domain``: amplitude, intensity, db or complex; None takes what the file says, else what its values tell
    (:mod:`nearflash.sar.choose`). ``nodata``: the value of missing pixels, instead of the file's own. ``db_scale``: units
    per decibel of dB data. ``borders``: "auto" masks borders of zeros, border noise and undeclared fills, "keep" keeps
    them. ``negatives``: what becomes of negative intensity: keep, clip, mask or error. ``part`` and ``product``: which image
    of a product (:func:`images_in`), and how it is calibrated.

    Raises :class:`ConfigError` for an unknown suffix or domain, :class:`DataError` naming the file if it is not there, is
    damaged or has a wrong shape, :class:`~nearflash.sar.choose.DomainError` if nobody can tell its domain.
    """
    from ..settle import settle  # needs this package's interface

    path = Path(path)
    scene = _reader(path, domain, nodata, db_scale, part, product or ProductOptions())
    try:
        settle(scene, domain, borders=borders, negatives=negatives)
    except BaseException:
        scene.close()
        raise
    return scene


def _reader(path: Path, domain: str | None, nodata: float | None, db_scale: float, part: str | None,
            product: ProductOptions) -> Scene:
    """The image as its file tells it, nothing settled."""
    if domain is not None:
        check_domain(domain)
    check_scale(db_scale)
    if is_container(path):
        if CONTAINERS[path.suffix.lower()] == "hdf5":
            from .hdf5 import read_part as read_image
        else:
            from .netcdf import read_part as read_image
        return read_image(path, part, product, domain, nodata, db_scale)
    if is_sentinel1(path):
        if domain is not None:
            raise ConfigError("domain", domain, "must be absent for a Sentinel-1 product, whose values are known "
                              "(--calibration, --out-domain)")
        if nodata is not None:
            raise ConfigError("nodata", nodata, "must be absent for a Sentinel-1 product, which says itself what is missing")
        from .sentinel1 import read_part

        return read_part(path, part, product, db_scale)
    kind = _format(path, "input", _READERS)
    if not path.is_file():
        raise DataError("input", str(path), "file not found")
    if kind == "raster":
        from .raster import RasterScene as Reader
    elif kind == "npy":
        from .npy import NpyScene as Reader
    else:
        from .png import PngScene as Reader
    return Reader(path, domain, nodata, db_scale)


def open_writer(scene: Scene, path: str | Path, *, domain: str | None = None, dtype: str | None = None,
                scale: float | str | None = None, overwrite: bool = False) -> AbstractContextManager[Writer]:
    """A context manager that gives a :class:`Writer` of an image like ``scene`` at ``path``.

    The file appears under its name when the context ends without an error; until then it has another, beside it, and any
    error removes it. ``domain``: of the output, default the scene's (amplitude for complex scenes). ``dtype``: default
    float32, or the scene's own for PNG. ``scale``: stored values are those of the domain divided by it ("auto": found), with
    a scale tag: for whole numbers in a GeoTIFF. A GeoTIFF from an image of GDAL's keeps CRS, transform, GCPs, RPCs, nodata,
    mask and alpha, tags, band descriptions, compression, blocks and overviews.

    Raises :class:`ConfigError` for an unknown suffix, domain or type, a type that would crush the values, and for a file
    that exists.
    """
    from .encoding import plan_encoding  # needs this package's interface

    path = Path(path)
    kind = _format(path, "output", _WRITERS)
    require_new(path, overwrite)  # before hours of work
    if scale is not None and kind != "geotiff":
        raise ConfigError("out_scale", scale, f"must be absent for {path.suffix}, which holds no scale tag")
    if kind == "png" and dtype is None:
        dtype = scene.info.dtype
    encoding = plan_encoding(scene, domain, dtype, scale)
    if kind == "geotiff":
        from .geotiff import geotiff_writer

        return geotiff_writer(scene, path, encoding, overwrite)
    if kind == "npy":
        from .npy import npy_writer

        return npy_writer(scene, path, encoding, overwrite)
    from .png import png_writer

    return png_writer(scene, path, encoding, overwrite)


def read_array(path: str | Path, domain: str | None = None, *, nodata: float | None = None, db_scale: float = 1.0,
               band: int = 0, borders: str = "auto", negatives: str = "keep",
               product: ProductOptions | None = None) -> tuple[np.ndarray, SceneInfo]:
    """A whole band as intensity, float32 [H, W] with NaN for missing pixels (it includes ``offset`` of the info), and what
    is known of its file.

    Arguments and errors: as :func:`open_scene`.
    """
    with open_scene(path, domain, nodata=nodata, db_scale=db_scale, borders=borders, negatives=negatives,
                    product=product) as scene:
        if not 0 <= band < scene.bands:
            raise ConfigError("band", band, f"must be from 0 to {scene.bands - 1}, counted from 0: {path} has "
                              f"{scene.bands}")
        return scene.read(slice(0, scene.shape[0]), band), scene.info


def read_complex(path: str | Path, band: int = 0) -> np.ndarray:
    """A band of a complex image as it is, complex64 [H, W].

    Raises: as :func:`open_scene`, and :class:`DataError` for a file of real numbers.
    """
    with open_scene(path, "complex", borders="keep") as scene:
        values = scene.raw(slice(0, scene.shape[0]), band)
    if values.dtype.kind == "c":
        return values.astype(np.complex64)
    return (values[..., 0] + 1j * values[..., 1]).astype(np.complex64)
