"""Products that are folders or archives of many files: which images they hold, and how those are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...contract import ConfigError, DataError
from .unread import advice

__all__ = ["BURSTS", "CALIBRATIONS", "NOISE", "Image", "ProductOptions", "images_in", "is_product"]

CALIBRATIONS = ("sigma0", "beta0", "gamma0", "dn")
NOISE = ("auto", "remove", "keep")
BURSTS = ("merge", "each")


@dataclass(frozen=True)
class ProductOptions:
    """What is wanted of a Sentinel-1 product.

    ``calibration``: the backscatter coefficient, or dn for digital numbers; ``noise``: "auto" subtracts thermal noise where
    the product annotates it, "remove" insists; ``polarisations``, ``swaths``: names (VV, IW1), none for all; ``bursts`` of
    an SLC: "merge" or "each". Raises :class:`ConfigError` for unknown ones.
    """

    calibration: str = "sigma0"
    noise: str = "auto"
    polarisations: tuple[str, ...] = ()
    swaths: tuple[str, ...] = ()
    bursts: str = "merge"

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
    if not is_product(path):
        return [Image(path, None, path.name)]
    from .sentinel1 import list_parts

    return list_parts(path, options)


def _snap_images(path: Path) -> list[Image]:
    """The bands of a BEAM-DIMAP product (ENVI images), without the real and imaginary parts i_ and q_."""
    folder = path.with_suffix(".data")
    bands = [p for p in sorted(folder.glob("*.img")) if not p.name.startswith(("i_", "q_"))]
    if not bands:
        raise DataError("input", str(path), f"must have images in {folder.name}: {advice(path)}")
    return [Image(p, None, f"{path.stem}_{p.stem}.tif") for p in bands]
