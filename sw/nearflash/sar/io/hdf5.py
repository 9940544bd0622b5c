"""Images of HDF5 files by rows, laid out as :mod:`.hdf5_layouts` knows.

Why h5py and not GDAL: NISAR stores complex numbers as pairs of 16-bit floats, which GDAL 3.10, the one in rasterio's wheels,
can't read, and ICEYE stores real and imaginary part in two datasets. netCDF goes through GDAL (:mod:`.netcdf`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError

from ...contract import ConfigError, DataError
from ..domain import UNKNOWN
from .base import Scene, SceneInfo
from .hdf5_layouts import SMALLEST, Part, find_parts, is_complex
from .product import Image, ProductOptions, choose_parts

__all__ = ["Hdf5Scene", "list_parts", "read_part"]

CACHE = 128 << 20  # bytes of decompressed chunks that wait for the next rows
FILLS = ("_FillValue", "missing_value", "nodata")
DAMAGED = (OSError, KeyError, RuntimeError, ValueError)  # what h5py raises
#: Of NISAR's masks: outside of all sub-swaths, and outside of the image
MASK_INVALID, MASK_FILL = 0, 255


def list_parts(path: Path, options: ProductOptions) -> list[Image]:
    """The images of a file that are asked for, each with an output name after it. Raises :class:`ConfigError` for a
    polarisation or variable that it hasn't, :class:`DataError` for a damaged file or one without an image."""
    with _open(path) as file:
        parts = _chosen(path, file, options)
    return [Image(path, p.name, f"{path.stem}_{p.name}.tif" if p.name else f"{path.stem}.tif") for p in parts]


def read_part(path: Path, part: str | None, options: ProductOptions, domain: str | None = None, nodata: float | None = None,
              db_scale: float = 1.0) -> Hdf5Scene:
    """Open an image of a file by its name in :func:`list_parts` (None: the only one).

    Raises :class:`ConfigError` for another name, or none where there are several, :class:`DataError` for a damaged file.
    """
    file = _open(path)
    try:
        found = {p.name: p for p in _chosen(path, file, options)}
        if part is None and len(found) == 1:
            (part,) = found
        if part not in found:
            raise ConfigError("image", part, f"must be one of {', '.join(found)}, which {path} holds (--variable)")
        return Hdf5Scene(path, file, found[part], domain, nodata, db_scale)
    except BaseException:
        file.close()
        raise


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as e:
        raise ConfigError("input", str(path), "needs h5py (pip install h5py)") from e
    if not path.is_file():
        raise DataError("input", str(path), "file not found")
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE)
    except OSError as e:
        raise DataError("input", str(path), f"must be a whole HDF5 file ({e})") from e


def _chosen(path: Path, file: Any, options: ProductOptions) -> list[Part]:
    try:
        every = find_parts(file)
    except DAMAGED as e:
        raise DataError("input", str(path), f"must be a whole HDF5 file ({e})") from e
    if not every:
        raise DataError("input", str(path), f"must hold an image: a dataset of numbers with rows and columns, at least "
                        f"{SMALLEST} of each")
    return choose_parts(path, every, options, lambda p: p.polarisation, lambda p: (p.name, *p.paths))


class Hdf5Scene(Scene):
    """One image of an HDF5 file."""

    def __init__(self, path: Path, file: Any, part: Part, domain: str | None, nodata: float | None, db_scale: float):
        self.file = file
        self.sources = [file[name] for name in part.paths]
        first = self.sources[0]
        for source in self.sources:
            # Pixels that lie in other files: a crafted one could name any
            if source.external or source.is_virtual or source.file.filename != file.filename:
                raise DataError(f"{path} {source.name}", "stored elsewhere", "must be in the file itself: h5repack it")
        if len({s.shape for s in self.sources}) != 1:
            raise DataError(f"{path} {part.name} shape", [s.shape for s in self.sources], "must be one shape for both parts")
        kind = "complex64" if len(self.sources) == 2 or is_complex(first.dtype) else str(first.dtype.newbyteorder("="))
        if kind == "complex64" and domain not in (None, "complex"):
            raise DataError(f"{path} type", "complex", f"must be a real number for domain {domain}; complex data need "
                            "domain complex")
        if kind != "complex64" and domain == "complex":
            raise DataError(f"{path} {first.name} type", kind, "must be complex for domain complex")
        try:
            facts = part.describe(file, part)
        except (*DAMAGED, RasterioError) as e:
            raise DataError("input", f"{path} {part.name}", f"has damaged meta data ({e})") from e
        self.origin, self.missing = facts.origin, file[facts.mask] if facts.mask else None
        if self.missing is not None and self.missing.shape != first.shape:
            raise DataError(f"{path} {facts.mask} shape", self.missing.shape, f"must be the image's, {first.shape}")
        self.scale, self.shift = (_number(first, key, default) for key, default in (("scale_factor", 1.0),
                                                                                    ("add_offset", 0.0)))
        fills = [v for key in FILLS if (v := _number(first, key, None)) is not None]
        mark = nodata if nodata is not None else next((f for f in fills if not np.isnan(f)), None)
        rows, columns = first.shape
        self.info = SceneInfo(path, (rows, columns), 1, domain or UNKNOWN, kind, mark, db_scale, words=facts.words,
                              looks=facts.looks, names=(part.name,))

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        try:
            parts = [_numbers(source[rows]) for source in self.sources]
        except DAMAGED as e:
            raise DataError("input", str(self.info.path), f"can't be read at rows {rows.start} to {rows.stop}: damaged or "
                            f"cut short ({e})") from e
        return parts[0] if len(parts) == 1 else (parts[0] + 1j * parts[1]).astype(np.complex64)

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        values = self.raw(rows)
        missing = self.marked(values)
        if self.missing is not None:
            missing |= np.isin(self.missing[rows], (MASK_INVALID, MASK_FILL))
        if (self.scale, self.shift) != (1.0, 0.0):
            values = values * self.scale + self.shift
        return values, missing

    def close(self) -> None:
        self.file.close()


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.names:
        return (values["r"].astype(np.float32) + 1j * values["i"].astype(np.float32)).astype(np.complex64)
    if values.dtype.kind == "c":
        return values.astype(np.complex64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _number(source: Any, key: str, default: Any) -> Any:
    """An attribute as a number; ``default`` where it is none."""
    try:
        return float(np.ravel(source.attrs[key])[0])
    except (KeyError, TypeError, ValueError, IndexError):
        return default
