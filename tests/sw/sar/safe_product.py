"""Small Sentinel-1 products, written as the format wants them, with numbers that a test can compute by hand."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio

START = datetime(2021, 12, 23, 5, 11, 22, 594441)
NAME = "S1B_IW_{type}_1SDV_20211223T051122_20211223T051147_030148_039993_5371"


def _stamp(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def _row(values) -> str:
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


@dataclass
class Grd:
    """A ground range product. Sigma nought's vector grows by 1 every 10 lines and 1 every 50 samples from 100; noise is 400
    digital numbers squared in the first swath, 900 in the second, times 1 + line / 1000 in azimuth."""

    shape: tuple[int, int] = (200, 301)
    split: int = 150  # first sample of the second swath
    interval: float = 0.0015

    def sigma(self) -> np.ndarray:
        line, sample = np.mgrid[: self.shape[0], : self.shape[1]]
        return 100 + line / 10 + sample / 50

    def noise(self) -> np.ndarray:
        line, sample = np.mgrid[: self.shape[0], : self.shape[1]]
        return np.where(sample < self.split, 400.0, 900.0) * (1 + line / 1000)

    def write(self, folder: Path, numbers: dict[str, np.ndarray], noise: bool = True, looks=(5, 1)) -> Path:
        root = folder / (NAME.format(type="GRDH") + ".SAFE")
        for k, (pol, values) in enumerate(numbers.items(), 1):
            stem = f"s1b-iw-grd-{pol.lower()}-20211223t051122-20211223t051147-030148-039993-{k:03d}"
            _measurement(root, stem, values)
            _text(root / "annotation" / f"{stem}.xml", self._annotation(pol, looks))
            _text(root / "annotation" / "calibration" / f"calibration-{stem}.xml", self._calibration())
            if noise:
                _text(root / "annotation" / "calibration" / f"noise-{stem}.xml", self._noise())
        _text(root / "manifest.safe", "<xfdu/>")
        return root

    def _annotation(self, pol: str, looks) -> str:
        rows, columns = self.shape
        points = "".join(
            f"<geolocationGridPoint><azimuthTime>{_stamp(line * self.interval)}</azimuthTime><line>{line}</line>"
            f"<pixel>{sample}</pixel><latitude>{45 - line * 1e-4}</latitude><longitude>{8 + sample * 1e-4}</longitude>"
            "<height>120</height></geolocationGridPoint>" for line in (0, rows - 1) for sample in (0, columns - 1))
        return _product("GRD", pol, self.shape, self.interval, looks, "", points)

    def _calibration(self) -> str:
        rows, columns = self.shape
        vectors = ""
        for line in (0, 100, rows + 100):
            samples = list(range(0, columns, 50)) if line else [0, columns - 1]  # vectors differ in length
            sigma = [100 + line / 10 + s / 50 for s in samples]
            vectors += (f"<calibrationVector><azimuthTime>{_stamp(line * self.interval)}</azimuthTime><line>{line}</line>"
                        f"<pixel>{_row(samples)}</pixel><sigmaNought>{_row(sigma)}</sigmaNought>"
                        f"<betaNought>{_row([2 * v for v in sigma])}</betaNought>"
                        f"<gamma>{_row([3 * v for v in sigma])}</gamma>"
                        "</calibrationVector>")
        return f"<calibration><calibrationVectorList>{vectors}</calibrationVectorList></calibration>"

    def _noise(self) -> str:
        rows, columns = self.shape
        samples = [0, self.split - 1, self.split, columns - 1]
        ranges = "".join(
            f"<noiseRangeVector><azimuthTime>{_stamp(line * self.interval)}</azimuthTime><line>{line}</line>"
            f"<pixel>{_row(samples)}</pixel><noiseRangeLut>400 400 900 900</noiseRangeLut></noiseRangeVector>"
            for line in (0, rows - 1))
        azimuths = ""
        for first, last, at in ((0, self.split - 1, [0, rows - 1]), (self.split, columns - 1, [0, 50, rows - 1])):
            azimuths += ("<noiseAzimuthVector><firstAzimuthLine>0</firstAzimuthLine>"
                         f"<firstRangeSample>{first}</firstRangeSample>"
                         f"<lastAzimuthLine>{rows - 1}</lastAzimuthLine><lastRangeSample>{last}</lastRangeSample>"
                         f"<line>{_row(at)}</line><noiseAzimuthLut>{_row([1 + a / 1000 for a in at])}</noiseAzimuthLut>"
                         "</noiseAzimuthVector>")
        return (f"<noise><noiseRangeVectorList>{ranges}</noiseRangeVectorList>"
                f"<noiseAzimuthVectorList>{azimuths}</noiseAzimuthVectorList></noise>")


@dataclass
class Slc:
    """A TOPS SLC of bursts of 60 lines, each beginning 50 lines after the one before; lines 2 to 57 and samples 5 to 94 of
    each are valid. Sigma nought's vector is 15 at the first burst's first line and grows by 1 every 100 lines of azimuth."""

    bursts: int = 3
    lines: int = 60
    step: int = 50
    columns: int = 100
    interval: float = 0.002

    @property
    def shape(self) -> tuple[int, int]:
        return self.bursts * self.lines, self.columns

    def write(self, folder: Path, numbers: np.ndarray, swath: str = "iw1") -> Path:
        root = folder / (NAME.format(type="SLC_") + ".SAFE")
        stem = f"s1b-{swath}-slc-vv-20211223t051122-20211223t051147-030148-039993-004"
        _measurement(root, stem, numbers, dtype="complex_int16")
        first = _row([-1] * 2 + [5] * (self.lines - 4) + [-1] * 2)
        last = _row([-1] * 2 + [94] * (self.lines - 4) + [-1] * 2)
        bursts = "".join(f"<burst><azimuthTime>{_stamp(k * self.step * self.interval)}</azimuthTime>"
                         f"<firstValidSample>{first}</firstValidSample><lastValidSample>{last}</lastValidSample></burst>"
                         for k in range(self.bursts))
        points = "".join(
            f"<geolocationGridPoint><azimuthTime>{_stamp(k * self.step * self.interval)}</azimuthTime>"
            f"<line>{k * self.lines}</line><pixel>{s}</pixel><latitude>{45 - k}</latitude><longitude>{8 + s}</longitude>"
            "<height>0</height></geolocationGridPoint>" for k in range(self.bursts + 1) for s in (0, self.columns - 1))
        _text(root / "annotation" / f"{stem}.xml",
              _product("SLC", "VV", self.shape, self.interval, (1, 1), f"<burstList>{bursts}</burstList>", points))
        vectors = "".join(f"<calibrationVector><azimuthTime>{_stamp(t)}</azimuthTime><line>{n}</line><pixel>0 99</pixel>"
                          f"<sigmaNought>{v} {v}</sigmaNought></calibrationVector>"
                          for n, t, v in ((-574, -1.0, 10), (400, 1.0, 20)))
        _text(root / "annotation" / "calibration" / f"calibration-{stem}.xml", f"<calibration>{vectors}</calibration>")
        _text(root / "manifest.safe", "<xfdu/>")
        return root


def zipped(root: Path) -> Path:
    target = root.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent))
    return target


def _product(kind: str, pol: str, shape, interval: float, looks, bursts: str, points: str) -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<product>
  <adsHeader><productType>{kind}</productType><polarisation>{pol}</polarisation><mode>IW</mode></adsHeader>
  <imageAnnotation>
    <imageInformation>
      <productFirstLineUtcTime>{_stamp(0)}</productFirstLineUtcTime><azimuthTimeInterval>{interval:e}</azimuthTimeInterval>
      <numberOfSamples>{shape[1]}</numberOfSamples><numberOfLines>{shape[0]}</numberOfLines>
    </imageInformation>
    <processingInformation>
      <thermalNoiseCorrectionPerformed>false</thermalNoiseCorrectionPerformed>
      <swathProcParamsList><swathProcParams>
        <rangeProcessing><numberOfLooks>{looks[0]}</numberOfLooks></rangeProcessing>
        <azimuthProcessing><numberOfLooks>{looks[1]}</numberOfLooks></azimuthProcessing>
      </swathProcParams></swathProcParamsList>
    </processingInformation>
  </imageAnnotation>
  <swathTiming>{bursts}</swathTiming>
  <geolocationGrid><geolocationGridPointList>{points}</geolocationGridPointList></geolocationGrid>
</product>"""


def _measurement(root: Path, stem: str, values: np.ndarray, dtype: str | None = None) -> None:
    (root / "measurement").mkdir(parents=True, exist_ok=True)
    with rasterio.open(root / "measurement" / f"{stem}.tiff", "w", driver="GTiff", height=values.shape[0],
                       width=values.shape[1], count=1, dtype=dtype or values.dtype) as d:
        d.write(values, 1)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
