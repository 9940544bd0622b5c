"""TIFF, GeoTIFF and cloud-optimised GeoTIFF through rasterio (GDAL), read and written by rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ...contract import DataError
from ..domain import to_intensity
from .base import Scene, SceneInfo, Writer, encode, new_file

__all__ = ["GeoTiffScene", "geotiff_writer"]

CACHE_MB = 128  # of GDAL's blocks; its default is a share of the machine's memory
BLOCK = 256
_OWN_TAGS = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "GEOLOCATION", "SUBDATASETS", "COLOR_PROFILE")


def _environment() -> rasterio.Env:
    return rasterio.Env(GDAL_CACHEMAX=CACHE_MB, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")


def _open(path: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain TIFFs are welcome
        return rasterio.open(path, **options)


class GeoTiffScene(Scene):
    """A TIFF of one or more bands. A declared scale and offset are applied on reading and undone on writing."""

    def __init__(self, path: Path, domain: str | None, nodata: float | None, db_scale: float):
        try:
            with _environment():
                self.dataset = _open(path, driver="GTiff")
        except (RasterioError, OSError) as e:
            raise DataError("input", str(path), f"must be a whole TIFF file ({e})") from e
        d = self.dataset
        try:
            self._check(path, domain, nodata, db_scale)
        except BaseException:
            d.close()
            raise

    def _check(self, path: Path, domain: str | None, nodata: float | None, db_scale: float) -> None:
        d = self.dataset
        if len(set(d.dtypes)) != 1:
            raise DataError(f"{path} types", ", ".join(d.dtypes), "must be the same for all bands")
        is_complex = d.dtypes[0].startswith("complex")
        domain = domain or ("complex" if is_complex else "amplitude")
        if is_complex and domain != "complex":
            raise DataError(f"{path} type", d.dtypes[0],
                            f"must be a real number for domain {domain}; complex data need domain complex")
        self.pairs = domain == "complex" and not is_complex
        if self.pairs and d.count != 2:
            raise DataError(f"{path} bands", d.count, "must be complex, or 2 bands (real, imaginary) for domain complex")
        # A mask band or alpha channel marks missing pixels too; nodata given by the user comes first
        self.masked = MaskFlags.per_dataset in d.mask_flag_enums[0] and nodata is None
        self.scaled = any(s != 1 for s in d.scales) or any(o != 0 for o in d.offsets)
        self.info = SceneInfo(path, (d.height, d.width), 1 if self.pairs else d.count, domain, d.dtypes[0],
                              d.nodata if nodata is None else nodata, db_scale)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        """The file's values, before scale and offset."""
        return self._read(rows, [1, 2] if self.pairs else band + 1)

    def read(self, rows: slice, band: int = 0) -> np.ndarray:
        if not (self.masked or self.scaled):
            return super().read(rows, band)
        values = self.raw(rows, band)
        missing = np.zeros(values.shape[:2], bool)
        if self.info.nodata is not None and not self.pairs:
            missing |= values == self.info.nodata
        if self.scaled:
            index = [0, 1] if self.pairs else band
            values = values * np.array(self.dataset.scales)[index] + np.array(self.dataset.offsets)[index]
        if self.masked:
            missing |= self._read(rows, band + 1, mask=True) == 0
        if missing.any():
            values = np.where(missing, np.nan, values)
        return to_intensity(values, self.info.domain, db_scale=self.info.db_scale,
                            field=f"{self.info.path} from row {rows.start}:")

    def _read(self, rows: slice, bands: int | list[int], mask: bool = False) -> np.ndarray:
        window = Window(0, rows.start, self.shape[1], rows.stop - rows.start)  # type: ignore[call-arg]
        try:
            with _environment():
                read = self.dataset.read_masks if mask else self.dataset.read
                values = read(bands, window=window)
        except (RasterioError, OSError) as e:
            why = str(e.__cause__ or e)
            raise DataError("input", str(self.info.path), f"can't be read at rows {rows.start} to {rows.stop}: damaged or "
                            f"cut short ({why})") from e
        return np.moveaxis(values, 0, -1) if isinstance(bands, list) else values

    def close(self) -> None:
        self.dataset.close()


class _GeoTiffWriter(Writer):
    def __init__(self, scene: Scene, dataset: Any, domain: str, nodata: float | None):
        self.scene, self.dataset, self.domain, self.nodata = scene, dataset, domain, nodata
        self.dtype = np.dtype(dataset.dtypes[0])
        source = scene if isinstance(scene, GeoTiffScene) else None
        self.scaled = source if source is not None and source.scaled and not source.pairs else None
        # A float file may hold NaN beside its nodata value: then each missing pixel keeps its own
        self.both = (np.dtype(scene.info.dtype).kind == "f" and self.dtype.kind == "f" and scene.info.domain != "complex"
                     and nodata is not None and not np.isnan(nodata) and not (source is not None and source.masked))
        # Rows wait for a whole row of tiles: a compressed tile written in parts leaves its earlier parts in the file
        self.waiting = np.empty((BLOCK, scene.shape[1]), self.dtype)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        missing = np.isnan(intensity)
        encoded = encode(intensity, self.domain, np.dtype(np.float32) if self.scaled else self.dtype, nodata=self.nodata,
                         db_scale=self.scene.info.db_scale, field=str(self.scene.info.path))
        if self.scaled:
            scale, offset = self.scaled.dataset.scales[band], self.scaled.dataset.offsets[band]
            encoded = np.where(missing, encoded, (encoded - offset) / scale).astype(self.dtype)
        if self.both and missing.any():
            raw = self.scene.raw(slice(row, row + len(intensity)), band)
            encoded[missing & np.isnan(raw)] = np.nan
        done = 0
        while done < len(encoded):
            first = (row + done) % BLOCK
            some = encoded[done : done + BLOCK - first]
            self.waiting[first : first + len(some)] = some
            done += len(some)
            end = row + done
            if end % BLOCK == 0 or end == self.scene.shape[0]:
                start = (end - 1) // BLOCK * BLOCK
                window = Window(0, start, encoded.shape[1], end - start)  # type: ignore[call-arg]
                with _environment():
                    self.dataset.write(self.waiting[: end - start], band + 1, window=window)


@contextmanager
def geotiff_writer(scene: Scene, path: Path, domain: str, dtype: np.dtype, overwrite: bool) -> Iterator[Writer]:
    """See :func:`nearflash.sar.io.open_writer`: deflate, tiles of 256 x 256, BigTIFF where 4 GB may not be enough; a COG
    if the scene is one."""
    import rasterio.shutil

    source = scene if isinstance(scene, GeoTiffScene) else None
    nodata = scene.info.nodata
    if source is not None and source.masked:
        nodata = float("nan") if dtype.kind == "f" else nodata
    rows, columns = scene.shape
    cog = source is not None and source.dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    options: dict[str, Any] = {
        "driver": "GTiff", "dtype": dtype.name, "nodata": nodata, "width": columns, "height": rows, "count": scene.bands,
        "compress": "deflate", "predictor": 3 if dtype.kind == "f" else 2, "bigtiff": "if_safer", "interleave": "band",
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    with new_file(path, overwrite=overwrite) as part:
        with _environment():
            dataset = _open(part, mode="w", **options)
        try:
            if source is not None:
                _describe(source, dataset)
            yield _GeoTiffWriter(scene, dataset, domain, nodata)
        finally:
            with _environment():
                dataset.close()
        _verify(part, rows)
        if cog:
            plain = part.with_name(part.name + ".plain")
            part.replace(plain)
            try:
                with _environment():
                    rasterio.shutil.copy(plain, part, driver="COG", compress="DEFLATE", bigtiff="IF_SAFER",
                                         predictor="YES")
            finally:
                plain.unlink(missing_ok=True)


def _describe(source: GeoTiffScene, dataset: Any) -> None:
    """Everything about the place and the product that a TIFF holds beside its pixels."""
    old = source.dataset
    gcps, gcp_crs = old.gcps
    if gcps:
        dataset.gcps = (gcps, gcp_crs)
    else:
        if old.crs is not None:
            dataset.crs = old.crs
        if not old.transform.is_identity:
            dataset.transform = old.transform
    if old.rpcs is not None:
        dataset.rpcs = old.rpcs
    for namespace in [None, *(n for n in old.tag_namespaces() if n not in _OWN_TAGS)]:
        dataset.update_tags(ns=namespace, **old.tags(ns=namespace))
    for band in range(1, source.bands + 1):
        for namespace in [None, *(n for n in old.tag_namespaces(band) if n not in _OWN_TAGS)]:
            tags = {k: v for k, v in old.tags(band, ns=namespace).items() if not k.startswith("STATISTICS_")}
            dataset.update_tags(band, ns=namespace, **tags)
        if old.descriptions[band - 1]:
            dataset.set_band_description(band, old.descriptions[band - 1])
        if old.units[band - 1]:
            dataset.set_band_unit(band, old.units[band - 1])
    if source.scaled and not source.pairs:
        dataset.scales, dataset.offsets = old.scales, old.offsets


def _verify(part: Path, rows: int) -> None:
    """Read a row of every row of tiles: GDAL reports nothing when its last blocks don't fit on the disk."""
    try:
        with _environment(), _open(part) as written:
            for row in range(0, rows, BLOCK):
                written.read(window=Window(0, row, written.width, 1))  # type: ignore[call-arg]
    except RasterioError as e:
        raise OSError(f"incomplete, the disk may be full ({e.__cause__ or e})") from e
