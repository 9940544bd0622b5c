"""TIFF, GeoTIFF, cloud-optimised GeoTIFF, ENVI and COSAR images through rasterio (GDAL), read by rows.

Files beside an image (world files, ``.aux.xml``, ``.msk``, ``.ovr``) belong to it, as everywhere in GDAL.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ...contract import DataError
from ..domain import UNKNOWN
from .base import Origin, Scene, SceneInfo

__all__ = ["DRIVERS", "RasterScene", "environment", "open_raster"]

CACHE_MB = 128  # of GDAL's blocks; its default is a share of the machine's memory
DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "ENVI", ".cos": "COSAR"}
WORD_TAGS = ("domain", "unit", "units", "long_name", "standard_name")  # tags that say what the values are
_OWN_TAGS = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "GEOLOCATION", "SUBDATASETS", "COLOR_PROFILE")
_COLOURS = {ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.palette}


def environment() -> rasterio.Env:
    """GDAL's settings while a file is read or written."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE_MB, GDAL_TIFF_INTERNAL_MASK=True)


def open_raster(path: Path | str, **options: Any) -> Any:
    """rasterio's dataset of ``path``. Raises what rasterio raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain TIFFs are welcome
        return rasterio.open(path, **options)


class RasterScene(Scene):
    """An image of one or more bands; the pages of a TIFF are bands too. A declared scale and offset are applied."""

    def __init__(self, path: Path, domain: str | None, nodata: float | None, db_scale: float, name: str | None = None,
                 driver: str | None = None):
        """``name``: what GDAL opens with ``driver``, where that is a part of the file."""
        driver = driver or DRIVERS[path.suffix.lower()]
        self.datasets: list[Any] = []
        try:
            with environment():
                self.datasets.append(open_raster(name or path, driver=driver))
                # A TIFF's first page is open; the others are images of their own
                self.datasets += [open_raster(name) for name in self.datasets[0].subdatasets[1:] if driver == "GTiff"]
        except (RasterioError, OSError) as e:
            self.close()
            what = "TIFF" if driver == "GTiff" else driver
            raise DataError("input", str(path), f"must be a whole {what} file ({e})") from e
        try:
            self._check(path, domain, nodata, db_scale)
        except BaseException:
            self.close()
            raise

    def _check(self, path: Path, domain: str | None, nodata: float | None, db_scale: float) -> None:
        first = self.datasets[0]
        types = [t for d in self.datasets for t in d.dtypes]
        if len(set(types)) != 1:
            raise DataError(f"{path} types", ", ".join(types), "must be the same for all bands and pages")
        if len({(d.shape, d.count) for d in self.datasets}) != 1:
            raise DataError(f"{path} pages", ", ".join(f"{d.height}x{d.width}x{d.count}" for d in self.datasets),
                            "must have the same size and bands: split the file (gdal_translate GTIFF_DIR:2:FILE page2.tif)")
        colours = [c for d in self.datasets for c in d.colorinterp]
        if not _COLOURS.isdisjoint(colours) and np.dtype(_numpy_type(types[0])).itemsize <= 2:
            raise DataError(f"{path} colours", ", ".join(c.name for c in colours), "must be grey: a colour picture holds no "
                            "SAR values. Take the product's own image, or mark separate bands as grey (gdal_translate "
                            "-colorinterp gray,undefined,undefined)")
        is_complex = types[0].startswith("complex")
        if is_complex and domain not in (None, "complex"):
            raise DataError(f"{path} type", types[0],
                            f"must be a real number for domain {domain}; complex data need domain complex")
        alphas = [k for k, c in enumerate(first.colorinterp) if c is ColorInterp.alpha]
        self.alpha = alphas[0] + 1 if alphas and first.count > 1 else None
        per_page = first.count - (self.alpha is not None)
        if self.alpha is not None and self.alpha != first.count:
            raise DataError(f"{path} alpha", self.alpha, "must be the last band")
        #: Of each band its page and its number there
        self.places = [(d, k + 1) for d in self.datasets for k in range(per_page)]
        self.pairs = domain == "complex" and not is_complex
        if self.pairs and len(self.places) != 2:
            raise DataError(f"{path} bands", len(self.places),
                            "must be complex, or 2 bands (real, imaginary) for domain complex")
        self.origin = _origin(self, nodata)
        # GDAL's complex integers have no NumPy type: rasterio reads them as complex64
        notes = (f"{len(self.datasets)} pages, done as {len(self.places)} bands",) if len(self.datasets) > 1 else ()
        descriptions = self.origin.descriptions
        words = [*(descriptions or ()), *(self.origin.units or ()),
                 *(v for tags in (self.origin.tags, *self.origin.band_tags) for t in tags.values()
                   for k, v in t.items() if k.lower() in WORD_TAGS)]
        self.info = SceneInfo(path, first.shape, 1 if self.pairs else len(self.places), domain or UNKNOWN,
                              _numpy_type(types[0]), first.nodata if nodata is None else nodata, db_scale,
                              words=tuple(w for w in words if w), names=tuple(d or "" for d in descriptions), notes=notes)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        """The file's values, before scale and offset."""
        if self.pairs:
            return np.stack([self._read(rows, *place) for place in self.places], axis=-1)
        return self._read(rows, *self.places[band])

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        values = self.raw(rows, band)
        missing = self.marked(values)
        if self.origin.scales:
            index = [0, 1] if self.pairs else band
            values = values * np.array(self.origin.scales)[index] + np.array(self.origin.offsets)[index]
        if self.origin.mask:
            missing |= self.mask(rows, band) == 0
        return values, missing

    def mask(self, rows: slice, band: int = 0) -> np.ndarray:
        dataset, number = self.places[band]
        return self._read(rows, dataset, number, mask=True)

    def _read(self, rows: slice, dataset: Any, number: int, mask: bool = False) -> np.ndarray:
        window = Window(0, rows.start, self.shape[1], rows.stop - rows.start)  # type: ignore[call-arg]
        try:
            with environment():
                return (dataset.read_masks if mask else dataset.read)(number, window=window)
        except (RasterioError, OSError) as e:
            why = str(e.__cause__ or e)
            raise DataError("input", str(self.info.path), f"can't be read at rows {rows.start} to {rows.stop}: damaged or "
                            f"cut short ({why})") from e

    def close(self) -> None:
        for dataset in self.datasets:
            dataset.close()


def _numpy_type(dtype: str) -> str:
    return "complex64" if dtype.startswith("complex_int") else dtype


def _tags(dataset: Any, band: int = 0) -> dict[str | None, dict[str, str]]:
    spaces = [None, *(n for n in dataset.tag_namespaces(band) if n not in _OWN_TAGS)]
    every = {n: {k: v for k, v in dataset.tags(band, ns=n).items() if not k.startswith("STATISTICS_")} for n in spaces}
    return {n: tags for n, tags in every.items() if tags}


def _origin(scene: RasterScene, nodata: float | None) -> Origin:
    d = scene.datasets[0]
    gcps, gcp_crs = d.gcps
    scales = tuple(page.scales[k - 1] for page, k in scene.places)
    offsets = tuple(page.offsets[k - 1] for page, k in scene.places)
    scaled = any(s != 1 for s in scales) or any(o != 0 for o in offsets)
    # A mask band or alpha channel marks missing pixels; nodata given by the user comes first
    mask = MaskFlags.per_dataset in d.mask_flag_enums[0] and nodata is None
    structure = d.tags(ns="IMAGE_STRUCTURE")
    return Origin(
        crs=None if gcps else d.crs, transform=None if gcps or d.transform.is_identity else d.transform,
        gcps=tuple(gcps), gcp_crs=gcp_crs, rpcs=d.rpcs, tags=_tags(d),
        band_tags=tuple(_tags(page, k) for page, k in scene.places),
        descriptions=tuple(page.descriptions[k - 1] for page, k in scene.places),
        units=tuple(page.units[k - 1] for page, k in scene.places),
        scales=scales if scaled else (), offsets=offsets if scaled else (),
        compress=structure.get("COMPRESSION", "").lower() or None, blocks=d.block_shapes[0],
        tiled=d.profile.get("tiled", False), cog=structure.get("LAYOUT") == "COG", overviews=tuple(d.overviews(1)),
        mask=mask, alpha=mask and scene.alpha is not None)
