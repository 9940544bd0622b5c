"""Variables of netCDF files, classic and netCDF-4, by rows through GDAL, which knows the CF conventions: axes, projection,
fill values, scale and offset, rows from south to north."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from ...contract import ConfigError, DataError
from .base import Origin
from .product import Image, ProductOptions, choose_parts
from .raster import RasterScene, environment, open_raster

__all__ = ["list_parts", "read_part"]

DRIVER = "netCDF"
SMALLEST = 16  # pixels on a side of what can be an image, not a table
#: Units and names of what lies beside an image: places, angles, times
NO_IMAGE = ("degree", "radian", "second", "days", "hours", "latitude", "longitude", "projection")


def list_parts(path: Path, options: ProductOptions) -> list[Image]:
    """The variables with rows and columns that are asked for, each with an output name after the file. Raises
    :class:`ConfigError` for a variable that it hasn't, :class:`DataError` for a damaged file or one without an image."""
    found = _variables(path, options)
    return [Image(path, name, f"{path.stem}_{name}.tif" if len(found) > 1 else f"{path.stem}.tif") for name in found]


def read_part(path: Path, part: str | None, options: ProductOptions, domain: str | None = None, nodata: float | None = None,
              db_scale: float = 1.0) -> RasterScene:
    """Open a variable by its name in :func:`list_parts` (None: the only one).

    Raises :class:`ConfigError` for another name, or none where there are several, :class:`DataError` for a damaged file.
    """
    found = _variables(path, options)
    if part is None and len(found) == 1:
        (part,) = found
    if part not in found:
        raise ConfigError("image", part, f"must be one of {', '.join(found)}, which {path} holds (--variable)")
    scene = RasterScene(path, domain, nodata, db_scale, name=found[part], driver=DRIVER)
    # A variable's chunks are no blocks for a GeoTIFF, nor is a file's list of attributes its tags
    plain = Origin()
    scene.origin = replace(scene.origin, compress=plain.compress, blocks=plain.blocks, tiled=plain.tiled, tags={},
                           band_tags=())
    scene.info = replace(scene.info, names=(part,) if scene.bands == 1 else scene.info.names,
                         words=(*scene.info.words, part))
    return scene


def _variables(path: Path, options: ProductOptions) -> dict[str, str]:
    """Names of the images and what GDAL opens."""
    if not path.is_file():
        raise DataError("input", str(path), "file not found")
    with environment() as env:
        if DRIVER not in env.drivers():
            raise ConfigError("input", str(path), "needs a GDAL with netCDF, which rasterio's own wheels have; or give the "
                              "variable as an xarray.DataArray to nearflash.sar.despeckle")
        try:
            with open_raster(path, driver=DRIVER) as whole:
                names = list(whole.subdatasets)
                found = {} if names else _image(whole, str(path))
            for name in names:
                with open_raster(name, driver=DRIVER) as one:
                    found |= _image(one, name)
        except (RasterioError, OSError) as e:
            raise DataError("input", str(path), f"must be a whole netCDF file ({e})") from e
    if not found:
        raise DataError("input", str(path), f"must hold an image: a variable of numbers with rows and columns, at least "
                        f"{SMALLEST} of each")
    chosen = choose_parts(path, list(found), options, lambda name: "", lambda name: (name,))
    return {name: found[name] for name in chosen}


def _image(dataset: Any, name: str) -> dict[str, str]:
    """``{variable: name}`` of a dataset that is an image, else nothing."""
    if not dataset.count or min(dataset.shape) < SMALLEST:
        return {}
    tags = dataset.tags(1)
    said = " ".join((*(u or "" for u in dataset.units[:1]), tags.get("units", ""), tags.get("standard_name", ""))).lower()
    if any(word in said for word in NO_IMAGE) or "flag_values" in tags or "flag_meanings" in tags:
        return {}
    return {tags.get("NETCDF_VARNAME") or name.rsplit(":", 1)[-1]: name}
