"""The interface of a scene and of a writer, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...contract import ConfigError, DataError, NearflashError
from ...whole import is_stream, whole_file
from ..borders import Border
from ..choose import DomainChoice
from ..domain import from_intensity, marked, to_intensity

__all__ = ["Encoding", "Origin", "Scene", "SceneInfo", "WriteError", "Writer", "new_file", "output_type", "require_new"]

OUTPUT_TYPES = ("float32", "float64", "uint8", "uint16", "int16", "int32")


class WriteError(NearflashError, OSError):
    """A file could not be written (disk full, no permission); nothing is left under its name."""


@dataclass(frozen=True)
class SceneInfo:
    """What is known of a scene before its pixels are read.

    A reader fills in what its file says; :func:`nearflash.sar.settle.settle` the rest.

    ``shape``: (rows, columns); ``bands``: images in the file; ``domain``: of the values, "unknown" until it is settled;
    ``dtype``: the values' type in the file; ``nodata``: the value that marks a missing pixel beside NaN; ``db_scale``: units
    per decibel of dB data; ``words``: what the product says of its values; ``looks``: number of looks it states;
    ``names``: of the bands, such as polarisations; ``notes``: what the user should hear.

    Settled: ``choice``: how the domain was found; ``fills``: more values that mark missing pixels; ``border``: what is
    masked along the edges; ``mark``: what missing pixels become in an output, where no nodata says it; ``negatives`` and
    ``offset``: what becomes of negative intensity, and what is added to intensity so that none of it is negative.
    """

    path: Path
    shape: tuple[int, int]
    bands: int
    domain: str
    dtype: str
    nodata: float | None = None
    db_scale: float = 1.0
    words: tuple[str, ...] = ()
    looks: float | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choice: DomainChoice | None = None
    fills: tuple[float, ...] = ()
    border: Border | None = None
    mark: float | None = None
    negatives: str = "error"
    offset: float = 0.0

    def name(self, band: int) -> str:
        """What a band is called, "" where the scene has but one without a name."""
        if band < len(self.names) and self.names[band]:
            return self.names[band]
        return f"band {band + 1}" if self.bands > 1 else ""


@dataclass(frozen=True)
class Origin:
    """What an image has beside its pixels, and a GeoTIFF made from it inherits.

    ``gcps``: ground control points (rasterio's) in ``gcp_crs``; ``tags``: by namespace (None: the default one);
    ``band_tags``: the same for each band; ``blocks``: (rows, columns) of the file's blocks; ``overviews``: decimations;
    ``scales``, ``offsets``: value = stored x scale + offset, declared by the file; ``mask``: whether a mask band
    (:meth:`Scene.mask`) marks missing pixels, ``alpha``: whether that is an alpha channel.
    """

    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()
    gcp_crs: Any = None
    rpcs: Any = None
    tags: dict[str | None, dict[str, str]] = field(default_factory=dict)
    band_tags: tuple[dict[str | None, dict[str, str]], ...] = ()
    descriptions: tuple[str | None, ...] = ()
    units: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    compress: str | None = "deflate"
    blocks: tuple[int, int] = (256, 256)
    tiled: bool = True
    cog: bool = False
    overviews: tuple[int, ...] = ()
    mask: bool = False
    alpha: bool = False


class Scene(ABC):
    """An open image of one or more bands, read by rows. A context manager.

    A reader gives :meth:`raw` and, where its file has more than values, :meth:`read_values`; the rest is the same for all.
    """

    info: SceneInfo
    origin: Origin = Origin()

    @property
    def shape(self) -> tuple[int, int]:
        return self.info.shape

    @property
    def bands(self) -> int:
        return self.info.bands

    def read(self, rows: slice, band: int = 0) -> np.ndarray:
        """Intensity of ``rows`` (start and stop given, step 1): float32 [rows, W], >= 0, NaN for missing pixels.

        It includes the offset of :meth:`offset`: speckle multiplies what the radar received, thermal noise included.
        Raises :class:`DataError` naming the file for unreadable data and for values outside the domain.
        """
        info = self.info
        name = " ".join(filter(None, (str(info.path), info.name(band), f"from row {rows.start}:")))
        values, missing = self.read_values(rows, band)
        intensity = to_intensity(values, info.domain, missing=missing, db_scale=info.db_scale, offset=info.offset,
                                 negatives=info.negatives, field=name)
        if info.border is not None:
            intensity[info.border.mask(intensity)] = np.nan
        return intensity

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The values of ``rows`` in the scene's domain, as :meth:`raw`, and which of them are missing, bool [rows, W]."""
        values = self.raw(rows, band)
        return values, self.marked(values)

    def marked(self, raw: np.ndarray) -> np.ndarray:
        """Which of the file's values [rows, W] mark missing pixels, bool; NaN is not among them."""
        return marked(raw, self.info.nodata, *self.info.fills)

    def offset(self, rows: slice, band: int = 0) -> np.ndarray | float:
        """Intensity that :meth:`read` added to that of ``rows`` and that is to be subtracted again from what is made of it:
        a number or float32 [rows, W]."""
        return self.info.offset

    def mask(self, rows: slice) -> np.ndarray:
        """The mask band of ``rows`` as the file has it, uint8 [rows, W], 0 for missing pixels: where ``origin.mask``."""
        raise NotImplementedError

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


@dataclass(frozen=True)
class Encoding:
    """How intensity becomes the values of a file: those of ``domain``, less an offset and divided by a scale of their band
    (none: 0 and 1), as ``dtype``, missing pixels as ``nodata``; with ``masked`` a mask band tells them, and they are 0 where
    there is no nodata."""

    domain: str
    dtype: np.dtype
    nodata: float | None = None
    db_scale: float = 1.0
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    masked: bool = False

    def encode(self, intensity: np.ndarray, field: str, band: int = 0) -> np.ndarray:
        """Intensity [rows, W] as [rows, W] of the file's type; whole numbers are rounded to even and clipped. No valid
        pixel becomes ``nodata``: it gets the next value instead.

        Raises :class:`DataError` for missing pixels where the type has no NaN and there is no nodata.
        """
        values = from_intensity(intensity, self.domain, db_scale=self.db_scale)
        missing = np.isnan(intensity)
        if self.scales:
            values = ((values - self.offsets[band]) / self.scales[band]).astype(np.float32)
        if self.dtype.kind in "iu":
            if self.nodata is None and missing.any() and not self.masked:
                raise DataError(f"{field} type", str(self.dtype),
                                "can't hold missing pixels: give nodata or a float output type")
            limits = np.iinfo(self.dtype)
            # In float64: float32 can't hold the limits of int32
            exact = np.where(missing, 0, values).astype(np.float64)
            stored = np.clip(np.rint(exact), limits.min, limits.max).astype(self.dtype)
        else:
            exact = values
            stored = values.astype(self.dtype)
        if self.nodata is not None:
            hit = ~missing & marked(stored, self.nodata)
            if hit.any():
                stored[hit] = self._beside(exact[hit])
            stored[missing] = self.nodata
        return stored

    def _beside(self, exact: np.ndarray) -> np.ndarray:
        """The values next to ``nodata``, on the side of ``exact`` if the type goes on there."""
        nodata = self.dtype.type(self.nodata)
        if self.dtype.kind == "f":
            low, high = np.nextafter(nodata, self.dtype.type(-np.inf)), np.nextafter(nodata, self.dtype.type(np.inf))
            lowest = 0 if self.domain == "amplitude" and not self.scales else -np.inf
        else:
            low, high, lowest = int(nodata) - 1, int(nodata) + 1, np.iinfo(self.dtype).min
            if high > np.iinfo(self.dtype).max:
                return np.full(len(exact), low, self.dtype)
        return np.where((exact < nodata) & (low >= lowest), low, high).astype(self.dtype)


def output_type(dtype: str) -> np.dtype:
    """The type of an output's pixels. Raises :class:`ConfigError`."""
    if dtype not in OUTPUT_TYPES:
        raise ConfigError("out_dtype", dtype, f"must be one of {', '.join(OUTPUT_TYPES)}")
    return np.dtype(dtype)


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
