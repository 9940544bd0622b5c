"""Sentinel-1 GRD and SLC images out of a SAFE product: calibrated, borders and burst edges masked, thermal noise known.

Intensity is read with its thermal noise, which is what speckle multiplies, and the noise is subtracted from the despeckled
image (:meth:`Scene.offset`): subtracted before, it would leave negative values and a speckle of another kind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ...contract import ConfigError, DataError
from ..domain import UNKNOWN, marked
from .base import Origin, Scene, SceneInfo
from .bursts import Rows, burst_rows, merged_rows, plain_rows
from .luts import Grid, read_azimuth_noise
from .product import Image, ProductOptions
from .raster import environment, open_raster
from .safe import MICRO, Annotation, Measurement, Safe, Vectors

__all__ = ["Sentinel1Scene", "list_parts", "read_part"]

#: Equivalent number of looks by mode and looks in range and azimuth. Source: "Sentinel-1 Product Definition",
#: S1-RS-MDA-52-7440, table 5-1.
EQUIVALENT_LOOKS = {("SM", 2, 2): 3.7, ("SM", 6, 6): 29.7, ("IW", 5, 1): 4.4, ("IW", 22, 5): 81.8, ("EW", 3, 1): 2.7,
                    ("EW", 6, 2): 10.7}
_VECTORS = {"sigma0": "sigmaNought", "beta0": "betaNought", "gamma0": "gamma"}
_NAMES = {"sigma0": "Sigma0", "beta0": "Beta0", "gamma0": "Gamma0", "dn": "Amplitude"}


class _Part:
    """One image of a product: a measurement, or a burst of it (from 0; None: all)."""

    def __init__(self, measurement: Measurement, burst: int | None, many_swaths: bool, many_numbers: bool):
        m = measurement
        self.measurement, self.burst = m, burst
        names = [m.swath if many_swaths or m.kind == "SLC" else "", m.polarisation, m.number if many_numbers else "",
                 "" if burst is None else f"burst{burst + 1}"]
        self.name = "_".join(filter(None, names))


def _parts(safe: Safe, options: ProductOptions) -> list[_Part]:
    every = safe.measurements()
    chosen = every
    for field, wanted, of in (("polarisation", options.polarisations, lambda m: m.polarisation),
                              ("swath", options.swaths, lambda m: m.swath)):
        known = sorted({of(m) for m in every})
        for name in wanted:
            if name.upper() not in known:
                raise ConfigError(field, name, f"must be one of {', '.join(known)}, which {safe.path} holds")
        if wanted:
            chosen = [m for m in chosen if of(m) in {w.upper() for w in wanted}]
    if not chosen:
        raise ConfigError("swath", ", ".join(options.swaths), f"must be one that {safe.path} holds in "
                          f"{', '.join(options.polarisations)}")
    for m in chosen:
        if m.kind not in ("GRD", "SLC"):
            raise DataError(f"{safe.path} type", m.kind, "must be GRD or SLC")
    many_swaths = len({m.swath for m in every}) > 1
    many_numbers = len({(m.swath, m.polarisation) for m in every}) < len(every)
    parts = []
    for m in chosen:
        if options.bursts == "each" and m.kind == "SLC":
            bursts = Annotation.read(safe.annotation(m), f"{safe.path} {m.stem}").bursts
            parts += [_Part(m, k, many_swaths, many_numbers) for k in range(len(bursts))]
        else:
            parts.append(_Part(m, None, many_swaths, many_numbers))
    return parts


def list_parts(path: Path, options: ProductOptions) -> list[Image]:
    """The images asked for, each with an output name after the product. Raises :class:`ConfigError` for a polarisation or
    sub-swath that it hasn't, :class:`DataError` for a damaged product."""
    safe = Safe(path)
    suffix = "" if options.calibration == "dn" else f"_{options.calibration}"
    return [Image(path, p.name, f"{safe.name}_{p.name}{suffix}.tif") for p in _parts(safe, options)]


def read_part(path: Path, part: str | None, options: ProductOptions, db_scale: float = 1.0) -> Sentinel1Scene:
    """Open an image of a product by its name in :func:`list_parts` (None: the only one); ``db_scale``: of an output in dB.

    Raises :class:`ConfigError` for another name, :class:`DataError` for a damaged product.
    """
    safe = Safe(path)
    found = {p.name: p for p in _parts(safe, options)}
    if part is None and len(found) == 1:
        (part,) = found
    if part not in found:
        raise ConfigError("part", part, f"must be one of {', '.join(found)}, which {path} holds")
    return Sentinel1Scene(safe, found[part], options, db_scale)


class Sentinel1Scene(Scene):
    """One image of a product; intensity, or amplitude for digital numbers."""

    def __init__(self, safe: Safe, part: _Part, options: ProductOptions, db_scale: float):
        m = part.measurement
        self.field = f"{safe.path} {m.stem}"
        note = Annotation.read(safe.annotation(m), self.field)
        self.rows = self._layout(note, part.burst)
        self.calibration = self.range_noise = None
        if options.calibration != "dn":
            vectors = Vectors.read(safe.calibration(m), "calibrationVector", _VECTORS[options.calibration], self.field)
            self.calibration = Grid(vectors, self._places(vectors, note), note.shape[1])
        notes = self._load_noise(safe, m, note, options)
        try:
            with environment():
                self.dataset = open_raster(safe.gdal_name(m), driver="GTiff")
        except (RasterioError, OSError) as e:
            raise DataError("input", self.field, f"must be a whole TIFF file ({e})") from e
        if self.dataset.shape != note.shape:
            shape = self.dataset.shape
            self.dataset.close()
            raise DataError(f"{self.field} shape", shape, f"must be that of its annotation, {note.shape}")
        looks = 1.0 if note.looks == (1, 1) else EQUIVALENT_LOOKS.get((note.mode[:2], *note.looks))
        name = f"{_NAMES[options.calibration]}_{m.polarisation}"
        self.origin = Origin(
            gcps=self._gcps(note), gcp_crs=CRS.from_epsg(4326), descriptions=(name,),
            tags={None: {"SENTINEL1_PRODUCT": safe.name, "SENTINEL1_IMAGE": m.stem, "POLARISATION": m.polarisation,
                         "CALIBRATION": options.calibration, "THERMAL_NOISE_REMOVED": str(self.range_noise is not None)}})
        # The file's type says whether zeros are quantised; NaN marks what is missing, as 0 is a value
        self.info = SceneInfo(safe.path, (len(self.rows), note.shape[1]), 1, UNKNOWN,
                              "uint16" if m.kind == "GRD" else "int16", float("nan"), db_scale, words=(name,), looks=looks,
                              names=(part.name,), notes=notes)

    def _layout(self, note: Annotation, burst: int | None) -> Rows:
        if not note.bursts:
            return plain_rows(note.shape[0])
        if sum(len(b.first) for b in note.bursts) != note.shape[0]:
            raise DataError(f"{self.field} bursts", len(note.bursts), f"must have {note.shape[0]} lines together")
        return merged_rows(note, self.field) if burst is None else burst_rows(note, burst)

    def _load_noise(self, safe: Safe, m: Measurement, note: Annotation, options: ProductOptions) -> tuple[str, ...]:
        self.azimuth_noise = []
        if options.noise == "keep":
            return ()
        if note.noise_removed:
            return ("thermal noise was removed by the processor already",)
        root = safe.noise(m)
        if root is None:
            if options.noise == "remove":
                raise DataError("noise", "remove", f"{self.field} has no noise annotation: --noise auto or keep leaves it "
                                "in")
            return ("no noise annotation in the product: thermal noise stays in",)
        old = root.find(".//noiseRangeVector") is None  # products before 2018
        vectors = Vectors.read(root, *(("noiseVector", "noiseLut") if old else ("noiseRangeVector", "noiseRangeLut")),
                               self.field)
        if not any(v.any() for v in vectors.values):
            return ("the noise annotation is all 0: thermal noise stays in",)
        self.range_noise = Grid(vectors, self._places(vectors, note), note.shape[1])
        self.azimuth_noise = read_azimuth_noise(root, note.shape, self.field)
        return ()

    def _places(self, vectors: Vectors, note: Annotation) -> np.ndarray:
        """Lines of the vectors in rows of the merged image: bursts overlap, so their lines in the file aren't azimuth."""
        return vectors.lines if not note.bursts else (vectors.times - note.bursts[0].time) * MICRO / note.interval

    def _gcps(self, note: Annotation) -> tuple[GroundControlPoint, ...]:
        points = []
        for p in note.grid:
            line = p.line if not note.bursts else (p.time - note.bursts[0].time) * MICRO / note.interval
            row = line - float(self.rows.lines[0])
            # A burst keeps the points of its own lines, and of the next burst's first
            if -1 <= row <= len(self.rows):
                points.append(GroundControlPoint(row=row, col=p.pixel, x=p.longitude, y=p.latitude, z=p.height))
        return tuple(points)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        """Digital numbers: amplitude, or complex."""
        source = self.rows.source[rows]
        # Merged bursts jump in the file: runs of rows that follow each other are read at once
        starts = np.flatnonzero(np.diff(source, prepend=source[0] - 2) != 1)
        parts = [self._read(int(run[0]), len(run)) for run in np.split(source, starts[1:])]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, first: int, count: int) -> np.ndarray:
        try:
            with environment():
                return self.dataset.read(1, window=Window(0, first, self.shape[1], count))  # type: ignore[call-arg]
        except (RasterioError, OSError) as e:
            raise DataError("input", self.field, f"can't be read at rows {first} to {first + count}: damaged or cut short "
                            f"({e.__cause__ or e})") from e

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.raw(rows)
        missing = marked(numbers, self.dataset.nodata)
        if self.rows.first is not None and self.rows.last is not None:
            sample = np.arange(numbers.shape[1])
            first, last = self.rows.first[rows, None], self.rows.last[rows, None]
            missing |= (first < 0) | (sample < first) | (sample > last)
        if self.calibration is None:
            return np.abs(numbers).astype(np.float32), missing
        amplitude = np.abs(numbers).astype(np.float32) / self.calibration.at(self.rows.lines[rows])
        return amplitude * amplitude, missing

    def offset(self, rows: slice, band: int = 0) -> np.ndarray | float:
        """Thermal noise of ``rows`` in the units of the intensity read."""
        if self.range_noise is None:
            return 0.0
        noise = self.range_noise.at(self.rows.lines[rows])
        for block in self.azimuth_noise:
            block.scale(noise, self.rows.source[rows])
        if self.calibration is not None:
            noise /= self.calibration.at(self.rows.lines[rows]) ** 2
        return noise

    def close(self) -> None:
        self.dataset.close()
