"""A stack of dates: each as its ratio to their mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from nearflash.cli.app import app
from nearflash.contract import ConfigError, DataError
from nearflash.sar.files import Settings, attempt, plan_jobs
from nearflash.sar.io import open_scene
from nearflash.sar.io.base import Writer
from nearflash.sar.methods import load_method
from nearflash.sar.temporal import _Spool, _Times, despeckle_dates
from rasterio.transform import from_origin
from typer.testing import CliRunner

SIDE, LOOKS, DATES = 160, 1, 6
CHANGED = np.s_[60:90, 60:90]  # a field that is four times brighter on the last date
SHIP = 130, 40  # on the last date alone


def ground() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    clean = 0.1 * (1 + 0.6 * np.sin(x / 2.5) * np.sin(y / 3.5))  # finer than a single look shows
    clean[:, 100:] *= 4
    return clean


def truth(date: int) -> np.ndarray:
    clean = ground()
    if date == DATES - 1:
        clean[CHANGED] *= 4
        clean[SHIP] *= 300
    return clean


def write(path: Path, bands: list[np.ndarray], transform=None) -> None:
    with rasterio.open(path, "w", driver="GTiff", height=SIDE, width=SIDE, count=len(bands), dtype="float32",
                       crs="EPSG:32633", transform=transform or from_origin(5e5, 5e6, 10, 10)) as file:
        for k, band in enumerate(bands, 1):
            file.write(band.astype(np.float32), k)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stack")
    rng = np.random.default_rng(5)
    for date in range(DATES):
        noisy = truth(date) * rng.standard_exponential((SIDE, SIDE))
        if date == 0:
            noisy[:20, :30] = np.nan
        if date == DATES - 1:
            noisy[SHIP] = truth(date)[SHIP]
        write(path / f"{date}.tif", [noisy, 3 * noisy[::-1]])
    return path


def read(path: Path, band: int = 1) -> np.ndarray:
    with rasterio.open(path) as file:
        assert file.crs == "EPSG:32633"
        return file.read(band)


def error(out: np.ndarray, clean: np.ndarray, where=np.s_[24:-24, 24:-24]) -> float:
    """Relative, of amplitude, rms."""
    return float(np.sqrt(np.nanmean((np.sqrt(out[where] / clean[where]) - 1) ** 2)))


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    jobs = plan_jobs([str(folder)], out / "dates", Settings("tiny", LOOKS, "intensity"))
    shares: list[float] = []
    (out / "dates").mkdir()
    done = despeckle_dates(jobs, load_method("tiny"), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    alone = plan_jobs([str(folder)], out / "alone", Settings("tiny", LOOKS, "intensity"))
    for job in alone[-2:]:
        assert attempt(job, load_method("tiny")).error is None
    assert not [p for p in (out / "dates").iterdir() if p.suffix != ".tif"]  # nothing temporary stays
    return done, out


def test_dates_together_tell_more_than_one(results):
    done, out = results
    for date in (DATES - 2, DATES - 1):
        together, alone = (error(read(out / kind / f"{date}.tif"), truth(date)) for kind in ("dates", "alone"))
        assert together < 0.75 * alone
    np.testing.assert_allclose(read(out / "dates" / "4.tif", 2), 3 * read(out / "dates" / "4.tif")[::-1], rtol=0.6)
    for result in done:
        for band in result.bands:
            assert band.mean_in is not None
            assert band.mean_out == pytest.approx(band.mean_in, rel=0.05)
            assert band.looks == LOOKS
            assert band.looks_source == "given"


def test_what_changed_stays_on_its_date(results):
    _, out = results
    inner = np.s_[66:84, 66:84]
    for date, factor in ((DATES - 1, 4), (0, 1), (3, 1)):
        assert read(out / "dates" / f"{date}.tif")[inner].mean() == pytest.approx(
            factor * ground()[inner].mean(), rel=0.25)


def test_a_ship_stays_on_its_date_and_on_no_other(results):
    _, out = results
    seen = 300 * ground()[SHIP]
    assert read(out / "dates" / f"{DATES - 1}.tif")[SHIP] == pytest.approx(seen, rel=0.05)
    for date in range(DATES - 1):  # 51 times the ground in the mean of the dates, as they are
        assert read(out / "dates" / f"{date}.tif")[SHIP] < 5 * ground()[SHIP]


class Collect(Writer):
    def __init__(self) -> None:
        self.image = np.empty((90, 80), np.float32)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.image[row : row + len(intensity)] = intensity


def test_what_stands_out_of_a_date_is_kept_whatever_became_of_its_ratio(tmp_path):
    noisy = np.random.default_rng(2).gamma(4, 1 / 4, (90, 80)).astype(np.float32)
    noisy[46, 40] = 40
    np.save(tmp_path / "a.npy", noisy)
    with open_scene(tmp_path / "a.npy", "intensity") as scene, (tmp_path / "mean").open("w+b") as file:
        mean = _Spool(file, 80)
        mean.write(np.ones((90, 80), np.float32), 0)
        for looks, expected in ((4.0, 40.0), (None, 1.0)):
            got = Collect()
            times = _Times(got, scene, [mean], looks)
            for row in (0, 45):  # the target beside the joint of two batches
                times.write(np.ones((45, 80), np.float32), row)
            assert got.image[46, 40] == pytest.approx(expected)
            got.image[46, 40] = 1
            np.testing.assert_allclose(got.image, 1, rtol=1e-5)


def test_missing_pixels_are_missing_on_their_date_alone(results):
    _, out = results
    first = read(out / "dates" / "0.tif")
    assert np.isnan(first[:20, :30]).all()
    assert np.isfinite(first[20:]).all()
    assert np.isfinite(read(out / "dates" / "1.tif")).all()


def test_other_grids_are_refused(folder, tmp_path):
    write(tmp_path / "a.tif", [ground(), ground()])
    write(tmp_path / "b.tif", [ground(), ground()], from_origin(5e5 + 10, 5e6, 10, 10))
    write(tmp_path / "c.tif", [ground()])
    method = load_method("lee")
    for names, words in (("ab", "transform.*co-registered"), ("ac", "bands")):
        jobs = plan_jobs([str(tmp_path / f"{n}.tif") for n in names], tmp_path / "out", Settings("lee", 1, "intensity"))
        with pytest.raises(DataError, match=words):
            despeckle_dates(jobs, method)
    jobs = plan_jobs([str(tmp_path / f"{n}.tif") for n in "ab"], tmp_path / "out",
                     Settings("lee", 1, "intensity", match_mean="global"))
    with pytest.raises(ConfigError, match="match_mean"):
        despeckle_dates(jobs, method)
    with pytest.raises(ConfigError, match="two dates"):
        despeckle_dates(jobs[:1], method)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_command(folder, tmp_path):
    report = tmp_path / "report.json"
    arguments = ["despeckle", str(folder), "--temporal", "--method", "lee", "--looks", "1", "--domain", "intensity"]
    done = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out"), "--json", str(report)])
    assert done.exit_code == 0, done.output
    result = json.loads(report.read_text())
    assert result["temporal"] is True
    assert [Path(f["output"]).name for f in result["files"]] == [f"{k}.tif" for k in range(DATES)]
    assert all((tmp_path / "out" / f"{k}.tif").exists() for k in range(DATES))
    wrong = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "again"), "--ratio", str(tmp_path / "ratio")])
    assert wrong.exit_code != 0
