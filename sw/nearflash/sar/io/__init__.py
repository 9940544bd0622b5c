"""Scenes in files: GeoTIFF and COG (rasterio), .npy, PNG (Pillow), read and written by rows as intensity.

>>> with open_scene("scene.tif", "amplitude") as scene, open_writer(scene, "clean.tif") as writer:
...     writer.write(scene.read(slice(0, 100)), 0)
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError
from ..domain import check_domain, check_scale
from .base import Scene, SceneInfo, WriteError, Writer, output_type, require_new

__all__ = ["SUFFIXES", "Scene", "SceneInfo", "WriteError", "Writer", "open_scene", "open_writer", "read_array"]

_FORMATS = {".tif": "geotiff", ".tiff": "geotiff", ".npy": "npy", ".png": "png"}
SUFFIXES = tuple(_FORMATS)


def _format(path: Path, field: str) -> str:
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        raise ConfigError(field, str(path), f"must end in one of {', '.join(SUFFIXES)}")
    return name


def open_scene(path: str | Path, domain: str | None = None, *, nodata: float | None = None,
               db_scale: float = 1.0) -> Scene:
    """Open an image for reading by rows.

    ``domain``: amplitude, intensity, db or complex; None is complex for complex values and amplitude for all others.
    ``nodata``: the value of missing pixels, instead of the file's own. ``db_scale``: units per decibel of dB data.

    Raises :class:`ConfigError` for an unknown suffix or domain, :class:`DataError` naming the file if it is not there, is
    damaged or has a wrong shape.
    """
    path = Path(path)
    kind = _format(path, "input")
    if domain is not None:
        check_domain(domain)
    check_scale(db_scale)
    if not path.is_file():
        raise DataError("input", str(path), "file not found")
    if kind == "geotiff":
        from .geotiff import GeoTiffScene

        return GeoTiffScene(path, domain, nodata, db_scale)
    if kind == "npy":
        from .npy import NpyScene

        return NpyScene(path, domain, nodata, db_scale)
    from .png import PngScene

    return PngScene(path, domain, nodata, db_scale)


def open_writer(scene: Scene, path: str | Path, *, domain: str | None = None, dtype: str | None = None,
                overwrite: bool = False) -> AbstractContextManager[Writer]:
    """A context manager that gives a :class:`Writer` of an image like ``scene`` at ``path``.

    The file appears under its name when the context ends without an error; until then it has another, beside it, and any
    error removes it. ``domain``: of the output, default the scene's (amplitude for complex scenes). ``dtype``: default
    float32, or the scene's own for PNG. A GeoTIFF from a GeoTIFF keeps CRS, transform, GCPs, RPCs, nodata, tags and band
    descriptions.

    Raises :class:`ConfigError` for an unknown suffix, domain or type and for a file that exists.
    """
    path = Path(path)
    kind = _format(path, "output")
    if domain is None:
        domain = "amplitude" if scene.info.domain == "complex" else scene.info.domain
    check_domain(domain, "out_domain", output=True)
    require_new(path, overwrite)  # before hours of work
    if kind == "geotiff":
        from .geotiff import geotiff_writer

        return geotiff_writer(scene, path, domain, output_type(dtype or "float32"), overwrite)
    if kind == "npy":
        from .npy import npy_writer

        return npy_writer(scene, path, domain, output_type(dtype or "float32"), overwrite)
    from .png import png_writer

    return png_writer(scene, path, domain, output_type(dtype or scene.info.dtype), overwrite)


def read_array(path: str | Path, domain: str | None = None, *, nodata: float | None = None, db_scale: float = 1.0,
               band: int = 0) -> tuple[np.ndarray, SceneInfo]:
    """A whole band as intensity, float32 [H, W] with NaN for missing pixels, and what is known of its file.

    Arguments and errors: as :func:`open_scene`.
    """
    with open_scene(path, domain, nodata=nodata, db_scale=db_scale) as scene:
        if not 0 <= band < scene.bands:
            raise ConfigError("band", band, f"must be from 0 to {scene.bands - 1}: {path} has {scene.bands}")
        return scene.read(slice(0, scene.shape[0]), band), scene.info
