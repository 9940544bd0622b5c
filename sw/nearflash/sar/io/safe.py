"""Files of a Sentinel-1 product (SAFE), in a folder or a .zip, and what its annotations say.

Why not xarray-sentinel (0.9.6, maintained): of ground range products it keeps the azimuth noise of the first sub-swath for
all three ("BROKEN" in its own words), it refuses range noise vectors of different lengths, which products before 2017 have,
removes no noise and masks no border, and brings pandas, fsspec, rioxarray and xmlschema along. What is needed of the format
is this file.

Format: "Sentinel-1 Product Specification", S1-RS-MDA-52-7441.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from xml.parsers import expat

import numpy as np

from ...contract import DataError

__all__ = ["MICRO", "Annotation", "Burst", "GridPoint", "Measurement", "Safe", "Vectors", "child_text", "numbers",
           "parse_xml"]

MICRO = 1e-6
LARGEST_XML = 64 << 20  # bytes; annotations have a few MB
_MEASUREMENT = re.compile(r"s1[a-d]-(?P<swath>[a-z]{2}\d?)-(?P<type>slc|grd|raw|ocn)-(?P<pol>vv|vh|hh|hv)-.*-"
                          r"(?P<number>\d{3})\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class Measurement:
    """One image of a product: its file's name in ``measurement``, sub-swath, polarisation and number."""

    file: str
    swath: str
    polarisation: str
    number: str
    kind: str

    @property
    def stem(self) -> str:
        return self.file.rsplit(".", 1)[0]


class Safe:
    """A product's files. Raises :class:`DataError` naming it for one that isn't there or isn't whole."""

    def __init__(self, path: Path):
        self.path = path
        if not path.exists():
            raise DataError("input", str(path), "product not found")
        self.zipped = path.is_file()
        self.root = ""
        if self.zipped:
            try:
                with zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
            except (OSError, zipfile.BadZipFile) as e:
                raise DataError("input", str(path), f"must be a whole .zip archive ({e})") from e
            roots = [n for n in names if n.endswith("manifest.safe")]
            if len(roots) != 1:
                raise DataError(f"{path} products", len(roots), "must be 1: a .zip holds one Sentinel-1 product (.SAFE)")
            self.root = roots[0].removesuffix("manifest.safe")
            self.files = {n.removeprefix(self.root) for n in names if n.startswith(self.root)}
        else:
            self.files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}

    @property
    def name(self) -> str:
        """The product's name, without .SAFE or .zip."""
        name = self.root.rstrip("/").rsplit("/", 1)[-1] or self.path.name
        return re.sub(r"\.(SAFE|zip)$", "", name, flags=re.IGNORECASE)

    def measurements(self) -> list[Measurement]:
        """The images, by name."""
        found = []
        for file in sorted(self.files):
            folder, _, name = file.rpartition("/")
            if folder == "measurement" and (m := _MEASUREMENT.fullmatch(name)):
                found.append(Measurement(name, m["swath"].upper(), m["pol"].upper(), m["number"], m["type"].upper()))
        if not found:
            raise DataError("input", str(self.path), "must hold at least one Sentinel-1 image (measurement/s1*.tiff): "
                            "a GRD or SLC product")
        return found

    def gdal_name(self, measurement: Measurement) -> str:
        """What GDAL opens."""
        inside = f"measurement/{measurement.file}"
        return f"/vsizip/{self.path.resolve()}/{self.root}{inside}" if self.zipped else str(self.path / inside)

    def annotation(self, measurement: Measurement) -> ET.Element:
        return self._xml(f"annotation/{measurement.stem}.xml")

    def calibration(self, measurement: Measurement) -> ET.Element:
        return self._xml(f"annotation/calibration/calibration-{measurement.stem}.xml")

    def noise(self, measurement: Measurement) -> ET.Element | None:
        """None where the product has no noise file."""
        name = f"annotation/calibration/noise-{measurement.stem}.xml"
        return self._xml(name) if name in self.files else None

    def _xml(self, name: str) -> ET.Element:
        if name not in self.files:
            raise DataError("input", str(self.path), f"must hold {name}")
        try:
            if self.zipped:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.root + name) as file:
                    text = file.read(LARGEST_XML + 1)
            else:
                with (self.path / name).open("rb") as file:
                    text = file.read(LARGEST_XML + 1)
        except (OSError, zipfile.BadZipFile, EOFError) as e:
            raise DataError("input", str(self.path), f"{name} can't be read ({e})") from e
        return parse_xml(text, f"{self.path}: {name}")


def parse_xml(text: bytes, field: str) -> ET.Element:
    """The root of ``text``. Raises :class:`DataError` for what is no XML, is too large, or declares a document type, through
    which a few bytes can expand to gigabytes or lead to other files; annotations have none."""
    if len(text) > LARGEST_XML:
        raise DataError(field, f"{len(text)} bytes", f"must be at most {LARGEST_XML}")

    def refuse(*_: object) -> None:
        raise DataError(field, "DOCTYPE", "must declare no document type")

    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(text, True)
        return ET.fromstring(text)
    except (expat.ExpatError, ET.ParseError) as e:
        raise DataError(field, "damaged", f"must be XML ({e})") from e


def child_text(element: ET.Element, path: str, field: str) -> str:
    """The text at ``path`` below ``element``. Raises :class:`DataError` where there is none."""
    text = element.findtext(path)
    if text is None or not text.strip():
        raise DataError(field, path, "must be there, with a value")
    return text.strip()


def numbers(element: ET.Element, path: str, field: str) -> np.ndarray:
    """The numbers at ``path`` below ``element``, separated by spaces, float64. Raises :class:`DataError`."""
    text = child_text(element, path, field)
    try:
        return np.array(text.split(), np.float64)
    except ValueError as e:
        raise DataError(field, path, f"must be numbers ({e})") from e


def _time(element: ET.Element, path: str, field: str) -> int:
    """Microseconds since 2000: whole, as lines are told apart by differences of times."""
    text = child_text(element, path, field)
    try:
        return (datetime.fromisoformat(text) - datetime(2000, 1, 1)) // timedelta(microseconds=1)
    except ValueError as e:
        raise DataError(field, text, f"must be a time ({path})") from e


@dataclass(frozen=True)
class Burst:
    """``time``: of its first line, us; ``first``, ``last``: valid samples of each line, -1 for none, int [lines]."""

    time: int
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class GridPoint:
    """A point of the geolocation grid: line and sample of the file, azimuth time in us, degrees and metres."""

    time: int
    line: float
    pixel: float
    longitude: float
    latitude: float
    height: float


@dataclass(frozen=True)
class Vectors:
    """Values along lines of an image: ``times`` (us) and ``lines`` [n], and of each line its samples and values."""

    times: np.ndarray
    lines: np.ndarray
    pixels: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]

    @classmethod
    def read(cls, root: ET.Element, vector: str, value: str, field: str) -> Vectors:
        """All ``vector`` elements below ``root``, the values of each being in ``value``."""
        found = root.findall(f".//{vector}")
        if not found:
            raise DataError(field, vector, "must be there at least once")
        pixels = tuple(numbers(v, "pixel", field) for v in found)
        values = tuple(numbers(v, value, field) for v in found)
        for p, v in zip(pixels, values, strict=True):
            if len(p) != len(v) or (np.diff(p) <= 0).any():
                raise DataError(field, value, "must have a value for each sample, samples in order")
        return cls(np.array([_time(v, "azimuthTime", field) for v in found]),
                   np.array([float(child_text(v, "line", field)) for v in found]), pixels, values)


@dataclass(frozen=True)
class Annotation:
    """What is used of a measurement's annotation: ``shape`` (lines, samples) of the file; ``interval`` of its lines in s;
    ``looks`` in range and azimuth; bursts (none in a ground range product); the geolocation grid."""

    mode: str
    shape: tuple[int, int]
    interval: float
    looks: tuple[int, int]
    noise_removed: bool
    bursts: tuple[Burst, ...]
    grid: tuple[GridPoint, ...]

    @classmethod
    def read(cls, root: ET.Element, field: str) -> Annotation:
        image = "imageAnnotation/imageInformation/"
        processing = "imageAnnotation/processingInformation/"
        swath = processing + "swathProcParamsList/swathProcParams/"
        looks = tuple(int(child_text(root, f"{swath}{way}Processing/numberOfLooks", field)) for way in ("range", "azimuth"))
        bursts = tuple(Burst(_time(b, "azimuthTime", field), numbers(b, "firstValidSample", field).astype(int),
                             numbers(b, "lastValidSample", field).astype(int))
                       for b in root.findall("swathTiming/burstList/burst"))
        grid = tuple(GridPoint(_time(p, "azimuthTime", field), *(float(child_text(p, name, field)) for name in
                                                                ("line", "pixel", "longitude", "latitude", "height")))
                     for p in root.findall("geolocationGrid/geolocationGridPointList/geolocationGridPoint"))
        return cls(child_text(root, "adsHeader/mode", field),
                   (int(child_text(root, image + "numberOfLines", field)),
                    int(child_text(root, image + "numberOfSamples", field))),
                   float(child_text(root, image + "azimuthTimeInterval", field)), looks,  # type: ignore[arg-type]
                   root.findtext(processing + "thermalNoiseCorrectionPerformed", "false").strip() == "true", bursts, grid)
