"""Formats of SAR products that are not read, and what to make of them first."""

from __future__ import annotations

from pathlib import Path

__all__ = ["advice"]

_ADVICE = {
    ".dim": "it is an index of the images in the .data folder beside it, of which one must be intensity or amplitude: of "
            "complex bands (i_, q_) make one in SNAP, or export a GeoTIFF",
    ".zarr": "open it with xarray and give the DataArray to nearflash.sar.despeckle",
    ".xml": "give the product's image instead: for TerraSAR-X the .cos or .tif in IMAGEDATA, for Radarsat-2 imagery_HH.tif, "
            "for Sentinel-1 the .SAFE folder",
    ".safe": "give the product's folder, whose name ends in .SAFE, not its manifest",
    ".ceos": "make a GeoTIFF of it: gdal_translate -of GTiff FILE scene.tif",
    ".vrt": "a virtual raster may lead to any file: make a GeoTIFF of it (gdal_translate FILE scene.tif)",
    ".jp2": "JPEG 2000 of SAR is a quick-look: take the product's own image",
    ".mat": "save the array with numpy.save as .npy",
}


def advice(path: Path) -> str:
    """What to do with a file that no reader takes, "" where nothing is known."""
    return _ADVICE.get(path.suffix.lower(), "")
