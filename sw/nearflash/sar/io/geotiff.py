"""GeoTIFF and cloud-optimised GeoTIFF, written by rows, with all that the image it was made from has beside its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ..declared import declared_domain
from .base import Encoding, Scene, Writer, new_file
from .raster import environment, open_raster

__all__ = ["geotiff_writer"]

BLOCK = 256
LARGEST_ROW = 64 << 20  # bytes of a row of blocks, which wait in memory: larger strips become tiles
LOSSLESS = ("deflate", "lzw", "zstd", "packbits", "lerc_zstd", "lerc_deflate", "lzma", "lerc")  # of any type


class _GeoTiffWriter(Writer):
    def __init__(self, scene: Scene, dataset: Any, encoding: Encoding):
        self.scene, self.dataset, self.encoding = scene, dataset, encoding
        nodata, info = encoding.nodata, scene.info
        # A float file may hold NaN beside its nodata value: then each missing pixel keeps its own
        self.both = (np.dtype(info.dtype).kind == "f" and encoding.dtype.kind == "f" and nodata is not None
                     and not np.isnan(nodata) and not scene.origin.mask and info.domain != "complex")
        # Rows wait for a whole row of blocks: a compressed block written in parts leaves its earlier parts in the file
        self.block = dataset.block_shapes[0][0]
        self.waiting = np.empty((self.block, scene.shape[1]), encoding.dtype)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        encoded = self.encoding.encode(intensity, str(self.scene.info.path), band)
        if self.both and np.isnan(intensity).any():
            encoded[np.isnan(intensity) & np.isnan(self.scene.raw(slice(row, row + len(intensity)), band))] = np.nan
        done = 0
        while done < len(encoded):
            first = (row + done) % self.block
            some = encoded[done : done + self.block - first]
            self.waiting[first : first + len(some)] = some
            done += len(some)
            end = row + done
            if end % self.block == 0 or end == self.scene.shape[0]:
                start = (end - 1) // self.block * self.block
                window = Window(0, start, encoded.shape[1], end - start)  # type: ignore[call-arg]
                with environment():
                    self.dataset.write(self.waiting[: end - start], band + 1, window=window)
                if band == 0 and self.scene.origin.mask:
                    self._write_mask(slice(start, end), window)

    def _write_mask(self, rows: slice, window: Window) -> None:
        mask = self.scene.mask(rows)
        with environment():
            if _keeps_alpha(self.scene, self.encoding):
                # The largest value is opaque: of 16 bits 65535
                alpha = mask.astype(self.encoding.dtype) * (257 if self.encoding.dtype == np.uint16 else 1)
                self.dataset.write(alpha.astype(self.encoding.dtype), self.scene.bands + 1, window=window)
            else:
                self.dataset.write_mask(mask, window=window)


@contextmanager
def geotiff_writer(scene: Scene, path: Path, encoding: Encoding, overwrite: bool) -> Iterator[Writer]:
    """See :func:`nearflash.sar.io.open_writer`; BigTIFF where 4 GB may not be enough."""
    origin = scene.origin
    with new_file(path, overwrite=overwrite) as part:
        with environment():
            dataset = open_raster(part, mode="w", **_options(scene, encoding))
        try:
            _describe(scene, dataset, encoding)
            yield _GeoTiffWriter(scene, dataset, encoding)
        finally:
            with environment():
                dataset.close()
        _verify(part, scene.shape[0])
        if origin.overviews and not origin.cog:
            with environment(), open_raster(part, mode="r+") as dataset:
                dataset.build_overviews(list(origin.overviews), Resampling.average)
        if origin.cog:
            _make_cog(part, _compression(origin.compress), origin.blocks[0])


def _compression(compress: str | None) -> str | None:
    """As it came, but never with loss: JPEG's and WebP's is for pictures."""
    return compress if compress is None or compress in LOSSLESS else "deflate"


def _keeps_alpha(scene: Scene, encoding: Encoding) -> bool:
    """Whether an alpha channel stays one; in signed whole numbers there is none, and it becomes a mask band."""
    return scene.origin.alpha and encoding.dtype.kind in "uf"


def _options(scene: Scene, encoding: Encoding) -> dict[str, Any]:
    origin, (rows, columns) = scene.origin, scene.shape
    options: dict[str, Any] = {
        "driver": "GTiff", "dtype": encoding.dtype.name, "nodata": encoding.nodata, "width": columns, "height": rows,
        "count": scene.bands + _keeps_alpha(scene, encoding), "bigtiff": "if_safer", "interleave": "band"}
    if compress := _compression(origin.compress):
        options["compress"] = compress
        if compress in ("deflate", "lzw", "zstd"):
            options["predictor"] = 3 if encoding.dtype.kind == "f" else 2
    height, width = origin.blocks
    if origin.tiled:
        options |= {"tiled": True, "blockxsize": width, "blockysize": height}
    elif min(height, rows) * columns * encoding.dtype.itemsize > LARGEST_ROW:
        options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    else:
        options |= {"blockysize": min(height, rows)}
    return options


def _describe(scene: Scene, dataset: Any, encoding: Encoding) -> None:
    """Everything about the place and the product that a TIFF holds beside its pixels."""
    origin = scene.origin
    if origin.gcps:
        dataset.gcps = (list(origin.gcps), origin.gcp_crs)
    if origin.crs is not None:
        dataset.crs = origin.crs
    if origin.transform is not None:
        dataset.transform = origin.transform
    if origin.rpcs is not None:
        dataset.rpcs = origin.rpcs
    for namespace, tags in origin.tags.items():
        dataset.update_tags(ns=namespace, **tags)
    same = encoding.domain == scene.info.domain
    for band in range(scene.bands):
        for namespace, tags in (origin.band_tags[band] if origin.band_tags else {}).items():
            dataset.update_tags(band + 1, ns=namespace, **tags)
        # A description of the input's domain would be wrong in another; this tag is right in any
        dataset.update_tags(band + 1, DOMAIN=encoding.domain)
        for texts, put in ((origin.descriptions, dataset.set_band_description), (origin.units, dataset.set_band_unit)):
            text = texts[band] if texts else None
            if text and (same or declared_domain([text]) is None):
                put(band + 1, text)
        if encoding.domain == "db" and not same:
            dataset.set_band_unit(band + 1, "dB")
    extra = (0.0,) * _keeps_alpha(scene, encoding)
    if encoding.scales:
        dataset.scales, dataset.offsets = (*encoding.scales, *(1.0 for _ in extra)), (*encoding.offsets, *extra)
    if extra:
        dataset.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (scene.bands - 1), ColorInterp.alpha]


def _verify(part: Path, rows: int) -> None:
    """Read a row of every row of blocks: GDAL reports nothing when its last blocks don't fit on the disk."""
    try:
        with environment(), open_raster(part) as written:
            for row in range(0, rows, written.block_shapes[0][0]):
                written.read(window=Window(0, row, written.width, 1))  # type: ignore[call-arg]
    except RasterioError as e:
        raise OSError(f"incomplete, the disk may be full ({e.__cause__ or e})") from e


def _make_cog(part: Path, compress: str | None, block: int) -> None:
    import rasterio.shutil

    plain = part.with_name(part.name + ".plain")
    part.replace(plain)
    try:
        with environment():
            rasterio.shutil.copy(plain, part, driver="COG", compress=(compress or "none").upper(), bigtiff="IF_SAFER",
                                 blocksize=block, **({"predictor": "YES"} if compress else {}))
    finally:
        plain.unlink(missing_ok=True)
        plain.with_name(plain.name + ".aux.xml").unlink(missing_ok=True)
