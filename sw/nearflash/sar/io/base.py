"""The interface of a scene and of a writer, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError, NearflashError
from ...whole import is_stream, whole_file
from ..domain import from_intensity, to_intensity

__all__ = ["Scene", "SceneInfo", "WriteError", "Writer", "encode", "new_file", "output_type", "require_new"]

OUTPUT_TYPES = ("float32", "float64", "uint8", "uint16", "int16", "int32")


class WriteError(NearflashError, OSError):
    """A file could not be written (disk full, no permission); nothing is left under its name."""


@dataclass(frozen=True)
class SceneInfo:
    """What is known of a scene before its pixels are read.

    ``shape``: (rows, columns); ``bands``: images in the file; ``dtype``: the values' type in the file; ``nodata``: the
    value that marks a missing pixel beside NaN; ``db_scale``: units per decibel of dB data.
    """

    path: Path
    shape: tuple[int, int]
    bands: int
    domain: str
    dtype: str
    nodata: float | None = None
    db_scale: float = 1.0


class Scene(ABC):
    """An open image of one or more bands, read by rows. A context manager."""

    info: SceneInfo

    @property
    def shape(self) -> tuple[int, int]:
        return self.info.shape

    @property
    def bands(self) -> int:
        return self.info.bands

    def read(self, rows: slice, band: int = 0) -> np.ndarray:
        """Intensity of ``rows`` (start and stop given, step 1): float32 [rows, W], NaN for missing pixels.

        Raises :class:`DataError` naming the file for unreadable data and for values outside the domain.
        """
        name = str(self.info.path) + (f" band {band + 1}" if self.bands > 1 else "") + f" from row {rows.start}:"
        return to_intensity(self.raw(rows, band), self.info.domain, nodata=self.info.nodata, db_scale=self.info.db_scale,
                            field=name)

    @abstractmethod
    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        """The file's values of ``rows``: [rows, W], or [rows, W, 2] for complex data stored as pairs."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer(ABC):
    """Takes intensity by rows. Made by :func:`nearflash.sar.io.open_writer`, a context manager."""

    @abstractmethod
    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        """Put ``intensity`` (float32 [rows, W], NaN for missing pixels) at ``row``: rows in order, band after band."""


def output_type(dtype: str) -> np.dtype:
    """The type of an output's pixels. Raises :class:`ConfigError`."""
    if dtype not in OUTPUT_TYPES:
        raise ConfigError("out_dtype", dtype, f"must be one of {', '.join(OUTPUT_TYPES)}")
    return np.dtype(dtype)


def encode(intensity: np.ndarray, domain: str, dtype: np.dtype, *, nodata: float | None, db_scale: float,
           field: str) -> np.ndarray:
    """Intensity [rows, W] as values of ``domain`` and ``dtype``; whole numbers are rounded to even and clipped.

    Raises :class:`DataError` for missing pixels where ``dtype`` has no NaN and ``nodata`` is None.
    """
    values = from_intensity(intensity, domain, db_scale=db_scale)
    missing = np.isnan(intensity)
    if dtype.kind in "iu":
        if nodata is None and missing.any():
            raise DataError(f"{field} type", str(dtype), "can't hold missing pixels: give nodata or a float output type")
        limits = np.iinfo(dtype)
        # In float64: float32 can't hold the limits of int32
        values = np.clip(np.rint(np.where(missing, 0, values).astype(np.float64)), limits.min, limits.max)
    if nodata is not None:
        values[missing] = nodata
    return values.astype(dtype)


def require_new(target: Path, overwrite: bool) -> None:
    """Raises :class:`ConfigError` if a file ``target`` exists and ``overwrite`` is false; devices and pipes always do."""
    if target.exists() and not overwrite and not is_stream(target):
        raise ConfigError("output", str(target), "exists already: choose another name or allow overwriting")


@contextmanager
def new_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, which becomes ``target`` on success and is removed on any failure, as
    :func:`~nearflash.whole.whole_file` says.

    Raises :class:`ConfigError` if a file ``target`` exists and ``overwrite`` is false, :class:`WriteError` if the disk is
    full or the folder can't be written.
    """
    require_new(target, overwrite)
    try:
        with whole_file(target) as part:
            sidecar = part.with_name(part.name + ".aux.xml")  # what GDAL can't put into a TIFF
            try:
                yield part
                if sidecar.exists() and not is_stream(target):
                    with whole_file(target.with_name(target.name + ".aux.xml")) as beside:
                        shutil.copyfile(sidecar, beside)
            finally:
                sidecar.unlink(missing_ok=True)
    except OSError as e:
        if isinstance(e, NearflashError):
            raise
        raise WriteError(_explain(e, target)) from e


def _explain(error: OSError, target: Path) -> str:
    why = error.strerror or str(error)
    text = f"{target} could not be written: {why}"
    folder = next((p for p in target.absolute().parents if p.exists()), None)
    if folder is not None:
        free = shutil.disk_usage(folder).free
        if error.errno == errno.ENOSPC or free < 1 << 24:
            text += f" ({free / 1e6:.0f} MB are free in {folder})"
    return text
