"""What images the HDF5 products hold, and where beside them it says what they are: NISAR (GCOV, GSLC, RSLC), ICEYE SLC, and
any other file whose images are two-dimensional datasets.

Formats: "NASA SDS Product Specification, L1 Range Doppler Single Look Complex", JPL D-102268, "L2 Geocoded Single Look
Complex", D-102269, "L2 Geocoded Polarimetric Covariance", D-102274; "ICEYE Level 1 Product Format Specification", 2.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

from .base import Origin

__all__ = ["SMALLEST", "Facts", "Part", "find_parts", "is_complex"]

SMALLEST = 16  # pixels on a side of what can be an image, not a table
MOST_POINTS = 20  # ground control points along each axis
LOOKS_ROWS = 16  # of the looks of each pixel that are looked at
WORDS = ("units", "long_name", "standard_name", "description")


@dataclass(frozen=True)
class Part:
    """One image of a file. ``name``: what it is called in outputs; ``paths``: its dataset, or those of its real and
    imaginary part; ``polarisation``: "" where none is known; ``describe``: fills in what the file says of it."""

    name: str
    paths: tuple[str, ...]
    polarisation: str = ""
    describe: Callable[[Any, Part], Facts] = field(repr=False, kw_only=True)


@dataclass(frozen=True)
class Facts:
    """``mask``: the dataset of a NISAR mask, "" for none."""

    origin: Origin
    words: tuple[str, ...] = ()
    looks: float | None = None
    mask: str = ""


def find_parts(file: Any) -> list[Part]:
    """The images of an open file, in the layout that it has."""
    return _nisar(file) or _iceye(file) or _any(file)


def is_complex(dtype: np.dtype) -> bool:
    """Complex numbers, or a pair of numbers named r and i, as h5py gives halves of 16 bits."""
    return dtype.kind == "c" or dtype.names == ("r", "i")


def _text(value: Any) -> str:
    value = np.ravel(value)[0] if np.size(value) else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _words(source: Any) -> tuple[str, ...]:
    return tuple(w for key in WORDS if key in source.attrs if (w := _text(source.attrs[key])))


def _grid(group: Any, x: str, y: str) -> Affine | None:
    """The transform of a group's coordinates of pixels' middles, None where it has none."""
    if x not in group or y not in group or min(group[x].size, group[y].size) < 2:
        return None
    (west, dx), (north, dy) = ((float(c[0]), float(c[-1] - c[0]) / (c.size - 1)) for c in (group[x], group[y]))
    return Affine(dx, 0, west - dx / 2, 0, dy, north - dy / 2)


def _crs(group: Any, name: str = "projection") -> CRS | None:
    """Of the dataset ``name`` by its EPSG code, else its WKT."""
    if name not in group:
        return None
    source = group[name]
    code = source.attrs.get("epsg_code", source[()] if source.shape == () and source.dtype.kind in "iu" else None)
    if code is not None:
        return CRS.from_epsg(int(_text(code)))
    wkt = source.attrs.get("spatial_ref", source.attrs.get("crs_wkt"))
    return None if wkt is None else CRS.from_wkt(_text(wkt))


# --- NISAR -----------------------------------------------------------------------------------------------------------------

_LEVELS = {"GCOV": "grids", "GSLC": "grids", "RSLC": "swaths", "SLC": "swaths"}  # SLC: RSLC's name in sample products


def _nisar(file: Any) -> list[Part]:
    """Frequencies and polarisations of a NISAR product; of a covariance its diagonal, which are the images."""
    parts = []
    for radar in ("LSAR", "SSAR"):
        for product, place in _LEVELS.items():
            group = file.get(f"science/{radar}/{product}/{place}")
            for frequency in sorted(group or ()):
                if not frequency.startswith("frequency"):
                    continue
                for name in sorted(group[frequency]):
                    pol = name[:2] if product == "GCOV" and len(name) == 4 and name[:2] == name[2:] else name
                    if len(pol) == 2 and set(pol) <= set("HVRL") and (product != "GCOV" or len(name) == 4):
                        source = f"science/{radar}/{product}/{place}/{frequency}/{name}"
                        label = "" if frequency == "frequencyA" and "frequencyB" not in group else f"{frequency}_"
                        parts.append(Part(f"{label}{name}", (source,), pol, describe=_describe_nisar))
    return parts


def _describe_nisar(file: Any, part: Part) -> Facts:
    source = file[part.paths[0]]
    group = source.parent
    product = group.parent.parent
    kind = product.name.rsplit("/", 1)[-1]
    tags = {"NISAR_PRODUCT": kind, "DATASET": source.name, "POLARISATION": part.polarisation}
    if kind in ("RSLC", "SLC"):
        points, crs = _geolocation(product, group)
        return Facts(Origin(gcps=points, gcp_crs=crs, descriptions=(part.name,), tags={None: tags}), looks=1.0)
    origin = Origin(crs=_crs(group), transform=_grid(group, "xCoordinates", "yCoordinates"), descriptions=(part.name,),
                    tags={None: tags})
    mask = f"{group.name}/mask"
    mask = mask if mask in file else ""
    if kind == "GSLC":
        return Facts(origin, looks=1.0, mask=mask)
    return Facts(origin, (f"power ({part.name} of the covariance)",), _pixel_looks(group), mask)


def _pixel_looks(group: Any) -> float | None:
    """The median of the looks of all pixels, where the product states them."""
    if "numberOfLooks" not in group:
        return None
    source = group["numberOfLooks"]
    rows = np.unique(np.linspace(0, source.shape[0] - 1, LOOKS_ROWS).astype(int))
    looks = np.concatenate([source[int(row)] for row in rows]).astype(np.float64)
    looks = looks[np.isfinite(looks) & (looks > 0)]
    return float(np.median(looks)) if len(looks) else None


def _geolocation(product: Any, swath: Any) -> tuple[tuple[GroundControlPoint, ...], CRS | None]:
    """Ground control points of a swath's pixels, from the layer of the geolocation grid that is nearest to height 0."""
    grid = product.get("metadata/geolocationGrid")
    times = swath.get("zeroDopplerTime", swath.parent.get("zeroDopplerTime"))
    if grid is None or times is None or "slantRange" not in swath:
        return (), None
    heights = grid["heightAboveEllipsoid"][...]
    layer = int(np.argmin(np.abs(heights)))
    rows, columns = (np.interp(at[...], axis[...], np.arange(axis.size), left=np.nan, right=np.nan)
                     for at, axis in ((grid["zeroDopplerTime"], times), (grid["slantRange"], swath["slantRange"])))
    x, y = grid["coordinateX"][layer], grid["coordinateY"][layer]
    inside = [np.flatnonzero(np.isfinite(places)) for places in (rows, columns)]
    some = [i[:: max(1, -(-len(i) // MOST_POINTS))] for i in inside]
    points = tuple(GroundControlPoint(row=float(rows[i]) + 0.5, col=float(columns[j]) + 0.5, x=float(x[i, j]),
                                      y=float(y[i, j]), z=float(heights[layer])) for i in some[0] for j in some[1])
    return points, CRS.from_epsg(int(grid["epsg"][()])) if points else None


# --- ICEYE -----------------------------------------------------------------------------------------------------------------


def _iceye(file: Any) -> list[Part]:
    if "s_i" not in file or "s_q" not in file:
        return []
    polarisation = _text(file["polarization"][()]) if "polarization" in file else ""
    return [Part("", ("s_i", "s_q"), polarisation, describe=_describe_iceye)]


def _describe_iceye(file: Any, part: Part) -> Facts:
    rows, columns = file["s_i"].shape
    tags = {"POLARISATION": part.polarisation}
    for key in ("product_name", "satellite_name", "acquisition_mode", "calibration_factor"):
        if key in file:
            tags[f"ICEYE_{key.upper()}"] = _text(file[key][()])
    points = []
    for name, row, column in (("first_near", 0, 0), ("first_far", 0, columns), ("last_near", rows, 0),
                              ("last_far", rows, columns), ("center", rows / 2, columns / 2)):
        if f"coord_{name}" in file:
            latitude, longitude = (float(v) for v in np.ravel(file[f"coord_{name}"][()])[-2:])
            points.append(GroundControlPoint(row=row, col=column, x=longitude, y=latitude))
    return Facts(Origin(gcps=tuple(points), gcp_crs=CRS.from_epsg(4326) if points else None,
                         descriptions=(part.polarisation or None,), tags={None: tags}), looks=1.0)


# --- any other -------------------------------------------------------------------------------------------------------------


def _any(file: Any) -> list[Part]:
    """Every dataset of numbers with rows and columns."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if (hasattr(item, "dtype") and item.ndim == 2 and min(item.shape) >= SMALLEST
                and (item.dtype.kind in "fiu" or is_complex(item.dtype))):
            found.append(name)

    file.visititems(visit)
    return [Part("" if len(found) == 1 else name.replace("/", "_"), (name,), describe=_describe_any)
            for name in sorted(found)]


def _describe_any(file: Any, part: Part) -> Facts:
    source = file[part.paths[0]]
    group = source.parent
    transform = _grid(group, "x_coordinates", "y_coordinates") or _grid(group, "x", "y")
    mapping = _text(source.attrs["grid_mapping"]) if "grid_mapping" in source.attrs else "projection"
    crs = _crs(group, mapping) if transform is not None else None
    words = (*_words(source), source.name.rsplit("/", 1)[-1])
    return Facts(Origin(crs=crs, transform=transform, descriptions=(source.name,)), words)
