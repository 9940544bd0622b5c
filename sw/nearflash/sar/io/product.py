"""Products that are folders or archives of many files: which images they hold, and how those are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...contract import ConfigError, DataError
from .unread import advice

__all__ = ["BURSTS", "CALIBRATIONS", "CONTAINERS", "NOISE", "Image", "ProductOptions", "choose_parts", "images_in",
           "is_container", "is_product", "is_sentinel1"]

CALIBRATIONS = ("sigma0", "beta0", "gamma0", "dn")
NOISE = ("auto", "remove", "keep")
BURSTS = ("merge", "each")
#: Files of several images, and the module that reads them
CONTAINERS = {".h5": "hdf5", ".hdf5": "hdf5", ".he5": "hdf5", ".nc": "netcdf", ".nc4": "netcdf"}

Part = TypeVar("Part")


@dataclass(frozen=True)
class ProductOptions:
    """What is wanted of a product.

    ``polarisations``: names (VV), none for all. Of Sentinel-1, ``calibration``: the backscatter coefficient, or dn for
    digital numbers; ``noise``: "auto" subtracts thermal noise where the product annotates it, "remove" insists; ``swaths``:
    names (IW1), none for all; ``bursts`` of an SLC: "merge" or "each". Of HDF5 and netCDF, ``variables``: names or paths of
    datasets, none for all. Raises :class:`ConfigError` for unknown ones.
    """

    calibration: str = "sigma0"
    noise: str = "auto"
    polarisations: tuple[str, ...] = ()
    swaths: tuple[str, ...] = ()
    bursts: str = "merge"
    variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, value, known in (("calibration", self.calibration, CALIBRATIONS), ("noise", self.noise, NOISE),
                                    ("bursts", self.bursts, BURSTS)):
            if value not in known:
                raise ConfigError(field, value, f"must be one of {', '.join(known)}")


@dataclass(frozen=True)
class Image:
    """One image to despeckle: a file, or a ``part`` of a product; ``name``: of its output, with the suffix."""

    path: Path
    part: str | None
    name: str


def is_product(path: Path) -> bool:
    """Whether ``path`` is a product, which may hold several images, and whose outputs are named after it."""
    return is_sentinel1(path) or is_container(path)


def is_container(path: Path) -> bool:
    """Whether ``path`` is an HDF5 or netCDF file by its name."""
    return path.suffix.lower() in CONTAINERS and not path.is_dir()


def is_sentinel1(path: Path) -> bool:
    """Whether ``path`` is a Sentinel-1 product: a folder named .SAFE or with a manifest.safe, or a .zip of one."""
    if path.suffix.upper() == ".SAFE" and path.name != "manifest.safe":
        return True
    if path.is_dir():
        return (path / "manifest.safe").is_file()
    return path.suffix.lower() == ".zip"


def images_in(path: Path, options: ProductOptions) -> list[Image]:
    """The images of a file or product, those asked for; of SNAP's .dim those in the folder beside it. Raises
    :class:`ConfigError` where a product has none of them, :class:`DataError` for a damaged one."""
    if path.suffix.lower() == ".dim":
        return _snap_images(path)
    if is_container(path):
        if CONTAINERS[path.suffix.lower()] == "hdf5":
            from .hdf5 import list_parts as list_images
        else:
            from .netcdf import list_parts as list_images
        return list_images(path, options)
    if not is_sentinel1(path):
        return [Image(path, None, path.name)]
    from .sentinel1 import list_parts

    return list_parts(path, options)


def choose_parts(path: Path, every: list[Part], options: ProductOptions, polarisation: Callable[[Part], str],
                 names: Callable[[Part], tuple[str, ...]]) -> list[Part]:
    """Those of a file's images that ``options`` ask for by polarisation and by one of their ``names``, which may be the end
    of a path. Raises :class:`ConfigError` for one that it hasn't."""
    for wanted in options.polarisations:
        if wanted.upper() not in (known := sorted({polarisation(p) for p in every} - {""})):
            raise ConfigError("polarisation", wanted, f"must be one of {', '.join(known) or 'none'}, which {path} holds")
    if options.polarisations:
        every = [p for p in every if polarisation(p) in {w.upper() for w in options.polarisations}]
    chosen = {}
    for wanted in options.variables:
        found = [k for k, p in enumerate(every) if any(f"/{n}".endswith(f"/{wanted.strip('/')}") for n in names(p))]
        if not found:
            known = ", ".join(n for p in every for n in names(p) if n)
            raise ConfigError("variable", wanted, f"must be one of {known}, which {path} holds")
        chosen |= {k: every[k] for k in found}
    return [chosen[k] for k in sorted(chosen)] if options.variables else every


def _snap_images(path: Path) -> list[Image]:
    """The bands of a BEAM-DIMAP product (ENVI images), without the real and imaginary parts i_ and q_."""
    folder = path.with_suffix(".data")
    bands = [p for p in sorted(folder.glob("*.img")) if not p.name.startswith(("i_", "q_"))]
    if not bands:
        raise DataError("input", str(path), f"must have images in {folder.name}: {advice(path)}")
    return [Image(p, None, f"{path.stem}_{p.stem}.tif") for p in bands]
