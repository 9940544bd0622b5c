"""Sentinel-1 products: calibration, thermal noise, borders, bursts, places and names, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("scipy")
rasterio = pytest.importorskip("rasterio")
typer = pytest.importorskip("typer")
from nearflash.cli.despeckle import despeckle  # noqa: E402
from nearflash.contract import ConfigError, DataError  # noqa: E402
from nearflash.sar.io import ProductOptions, images_in, open_scene  # noqa: E402
from nearflash.sar.io.safe import LARGEST_XML, parse_xml  # noqa: E402
from nearflash.sar.io.sentinel1 import read_part  # noqa: E402
from safe_product import NAME, Grd, Slc, zipped  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

app = typer.Typer()
app.command()(despeckle)
RNG = np.random.default_rng(4)
GRD, SLC = Grd(), Slc()


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture
def numbers() -> np.ndarray:
    return np.rint(np.sqrt(RNG.gamma(4.4, 1 / 4.4, GRD.shape)) * 200).astype(np.uint16)


@pytest.fixture
def slc_numbers() -> np.ndarray:
    # Whole numbers that differ between all lines: which line a row came from can be read off it
    line = np.arange(SLC.shape[0])[:, None] + 1.0
    return np.broadcast_to(line + 0j, SLC.shape).astype(np.complex64)


@pytest.mark.parametrize(("calibration", "factor"), [("sigma0", 1), ("beta0", 2), ("gamma0", 3)])
def test_calibration_and_noise_are_bilinear(tmp_path, numbers, calibration, factor):
    root = GRD.write(tmp_path, {"VV": numbers})
    with open_scene(root, product=ProductOptions(calibration)) as scene:
        everything = slice(0, GRD.shape[0])
        expected = (numbers / (factor * GRD.sigma())) ** 2
        np.testing.assert_allclose(scene.read(everything), expected, rtol=1e-5)
        np.testing.assert_allclose(scene.offset(everything), GRD.noise() / (factor * GRD.sigma()) ** 2, rtol=1e-5)
        # Parts of the image are parts of the whole
        np.testing.assert_array_equal(scene.read(slice(37, 90)), scene.read(everything)[37:90])
        np.testing.assert_array_equal(scene.offset(slice(37, 90)), scene.offset(everything)[37:90])
        assert scene.info.looks == 4.4
        assert (scene.info.domain, scene.info.choice.source) == ("intensity", "product")


def test_digital_numbers_and_noise_kept(tmp_path, numbers):
    root = GRD.write(tmp_path, {"VV": numbers})
    with open_scene(root, product=ProductOptions("dn", noise="keep")) as scene:
        np.testing.assert_allclose(scene.read(slice(0, 50)), numbers[:50].astype(float) ** 2, rtol=1e-6)
        assert scene.offset(slice(0, 50)) == 0
        assert scene.info.domain == "amplitude"


def test_command_subtracts_noise_and_names_the_output_after_the_product(tmp_path, numbers, monkeypatch):
    numbers[:50] //= 12  # darker than the noise
    root = GRD.write(tmp_path, {"VV": numbers, "VH": numbers // 2})
    monkeypatch.chdir(tmp_path)
    result = run(root, "--method", "none", "--polarisation", "vv", "--json", "r.json")
    name = NAME.format(type="GRDH") + "_VV_sigma0.tif"
    assert sorted(p.name for p in tmp_path.glob("*.tif")) == [name]
    with rasterio.open(tmp_path / name) as d:
        expected = (numbers.astype(float) ** 2 - GRD.noise()) / GRD.sigma() ** 2
        np.testing.assert_allclose(d.read(1), expected, rtol=1e-4, atol=1e-6)
        assert (d.read(1) < 0).any()  # noise about 0 stays
        points, crs = d.gcps
        assert crs.to_epsg() == 4326
        rows, columns = GRD.shape
        assert {(p.row, p.col, round(p.x, 4), round(p.y, 4), p.z) for p in points} == {
            (r, c, round(8 + c * 1e-4, 4), round(45 - r * 1e-4, 4), 120) for r in (0, rows - 1) for c in (0, columns - 1)}
        assert d.descriptions == ("Sigma0_VV",)
        assert np.isnan(d.nodata)
        assert d.tags()["SENTINEL1_PRODUCT"] == NAME.format(type="GRDH")
    (band,) = json.loads((tmp_path / "r.json").read_text())["files"][0]["bands"]
    assert (band["looks"], band["looks_source"]) == (4.4, "product")
    assert band["mean_in_intensity"] == pytest.approx(expected.mean(), rel=1e-4)
    assert "4.4 product" in result.output
    run(root, "-o", tmp_path / "both", "--method", "none", "--calibration", "gamma0", "--out-domain", "db", "--db-scale", 10)
    with rasterio.open(tmp_path / "both" / (NAME.format(type="GRDH") + "_VV_gamma0.tif")) as d:
        np.testing.assert_allclose(d.read(1)[60:], 100 * np.log10(expected[60:] / 9), rtol=1e-4, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == [
        NAME.format(type="GRDH") + f"_{pol}_gamma0.tif" for pol in ("VH", "VV")]


@pytest.mark.parametrize(("negatives", "lowest"), [("clip", 0.0), ("mask", None)])
def test_what_noise_leaves_negative(tmp_path, numbers, negatives, lowest):
    root = GRD.write(tmp_path, {"VV": numbers // 8})
    run(root, "-o", tmp_path / "o.tif", "--method", "none", "--negatives", negatives)
    expected = ((numbers // 8).astype(float) ** 2 - GRD.noise()) / GRD.sigma() ** 2
    with rasterio.open(tmp_path / "o.tif") as d:
        got = d.read(1)
    below = expected < -1e-9
    assert below.any()
    assert (got[below] == 0).all() if lowest == 0.0 else np.isnan(got[below]).all()
    np.testing.assert_allclose(got[expected > 1e-9], expected[expected > 1e-9], rtol=1e-3, atol=1e-7)
    result = run(root, "-o", tmp_path / "e.tif", "--method", "none", "--negatives", "error", code=1)
    assert "below the noise" in result.output


def test_borders_of_zeros_are_masked(tmp_path, numbers):
    numbers[:30] = 0
    for row in range(GRD.shape[0]):
        numbers[row, : 20 + row // 10] = 0
    root = GRD.write(tmp_path, {"VV": numbers})
    run(root, "-o", tmp_path / "o.tif", "--method", "lee")
    with rasterio.open(tmp_path / "o.tif") as d:
        np.testing.assert_array_equal(np.isnan(d.read(1)), numbers == 0)
    run(root, "-o", tmp_path / "kept.tif", "--method", "lee", "--borders", "keep")
    with rasterio.open(tmp_path / "kept.tif") as d:
        assert np.isfinite(d.read(1)).all()


def test_bursts_are_merged_where_they_are_valid(tmp_path, slc_numbers):
    root = SLC.write(tmp_path, slc_numbers)
    with open_scene(root) as scene:
        # Bursts hold rows 2 to 57, 52 to 107, 102 to 157 of the merged image; each overlap of 6 lines is halved
        assert scene.shape == (156, 100)
        lines = np.r_[2:55, 60 + 5 : 60 + 55, 120 + 5 : 120 + 58]
        intensity = scene.read(slice(0, 156))
        np.testing.assert_allclose(intensity[:, 50], ((lines + 1) / (15 + np.arange(2, 158) / 100)) ** 2, rtol=1e-5)
        assert np.isnan(intensity[:, :5]).all()
        assert np.isnan(intensity[:, 95:]).all()
        assert np.isfinite(intensity[:, 5:95]).all()
        np.testing.assert_array_equal(scene.read(slice(50, 60)), intensity[50:60])
        assert scene.info.looks == 1
        rows = {(round(p.row, 9), p.x, p.y) for p in scene.origin.gcps}
        assert {(50 * k - 2, 8.0, 45.0 - k) for k in (1, 2, 3)} <= rows  # at their place in azimuth, not in the file


def test_bursts_one_by_one(tmp_path, slc_numbers):
    root = SLC.write(tmp_path, slc_numbers)
    result = run(root, "-o", tmp_path / "out", "--method", "none", "--bursts", "each", "--looks", 1)
    names = [NAME.format(type="SLC_") + f"_IW1_VV_burst{k}_sigma0.tif" for k in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    with rasterio.open(tmp_path / "out" / names[1]) as d:
        got = d.read(1)
        assert {round(p.row, 9) for p in d.gcps[0]} == {0.0, 50.0}
    assert got.shape == (60, 100)
    expected = ((np.arange(62, 118) + 1) / (15 + np.arange(52, 108) / 100)) ** 2
    np.testing.assert_allclose(got[2:58, 50], expected, rtol=1e-5)
    assert np.isnan(got[[0, 1, 58, 59]]).all()
    assert "no noise annotation" in result.output
    assert "has no noise annotation" in run(root, "-o", tmp_path / "n", "--method", "none", "--noise", "remove",
                                            code=1).output


def test_a_gap_between_bursts_is_refused(tmp_path):
    apart = Slc(step=70)
    with pytest.raises(DataError, match="overlap or touch"):
        open_scene(apart.write(tmp_path, np.ones(apart.shape, np.complex64)))


def test_zip_is_the_folder(tmp_path, numbers):
    root = GRD.write(tmp_path, {"VV": numbers})
    archive = zipped(root)
    with open_scene(root) as a, open_scene(archive) as b:
        np.testing.assert_array_equal(a.read(slice(0, 200)), b.read(slice(0, 200)))
        np.testing.assert_array_equal(a.offset(slice(0, 200)), b.offset(slice(0, 200)))
    assert [i.name for i in images_in(archive, ProductOptions())] == [NAME.format(type="GRDH") + "_VV_sigma0.tif"]
    # A folder of products is a folder of inputs
    archive.unlink()
    run(tmp_path, "-o", tmp_path / "out", "--method", "none")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_damaged_product_does_not_stop_the_others(tmp_path, numbers):
    good = GRD.write(tmp_path / "good", {"VV": numbers})
    damaged = GRD.write(tmp_path, {"VV": numbers}).rename(tmp_path / "damaged.SAFE")
    next((damaged / "annotation").glob("*.xml")).write_text("<product>")
    empty = tmp_path / "empty.SAFE"
    empty.mkdir()
    result = run(damaged, empty, tmp_path / "absent.SAFE", good, "-o", tmp_path / "out", "--method", "none", code=1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [NAME.format(type="GRDH") + "_VV_sigma0.tif"]
    assert re.search(r"must be XML", result.output)
    assert "absent.SAFE" in result.output


def test_unknown_parts_are_named(tmp_path, numbers):
    root = GRD.write(tmp_path, {"VV": numbers, "VH": numbers})
    for options, said in ((["--polarisation", "HH"], "VH, VV"), (["--swath", "IW2"], "one of IW"),
                          (["--calibration", "sigma"], "sigma0, beta0, gamma0, dn"), (["--bursts", "some"], "merge, each")):
        result = CliRunner().invoke(app, [str(root), "-o", str(tmp_path / "o"), *options])
        assert isinstance(result.exception, ConfigError)
        assert said in str(result.exception)
    with pytest.raises(ConfigError, match="one of VH, VV"):
        open_scene(root)
    for options in ({"domain": "amplitude"}, {"nodata": 0.0}):
        with pytest.raises(ConfigError, match="Sentinel-1 product"):
            open_scene(root, part="VV", **options)
    np.save(tmp_path / "a.npy", numbers)
    result = CliRunner().invoke(app, [str(tmp_path / "a.npy"), "-o", str(tmp_path / "b.npy"), "--calibration", "beta0"])
    assert "has no effect without a Sentinel-1 product" in str(result.exception)
    result = CliRunner().invoke(app, [str(tmp_path / "a.npy")])
    assert "out" in str(result.exception)


@pytest.mark.parametrize(("text", "said"), [
    (b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>', "document type"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
    (b"<a><b></a>", "XML"), (b"", "XML"), (b"<a>" + b" " * LARGEST_XML + b"</a>", "at most"),
])
def test_hostile_xml_is_refused(text, said):
    with pytest.raises(DataError, match=said):
        parse_xml(text, "annotation")


def test_older_noise_and_looks_that_no_table_has(tmp_path, numbers):
    root = GRD.write(tmp_path, {"VV": numbers}, looks=(7, 3))
    file = next((root / "annotation" / "calibration").glob("noise-*"))
    text = file.read_text().replace("noiseRangeVector", "noiseVector").replace("noiseRangeLut", "noiseLut")
    file.write_text(re.sub(r"<noiseAzimuthVectorList>.*</noiseAzimuthVectorList>", "", text))
    with open_scene(root) as scene:
        assert scene.info.looks is None
        flat = np.where(np.arange(GRD.shape[1]) < GRD.split, 400, 900)
        np.testing.assert_allclose(scene.offset(slice(0, 9)), flat / GRD.sigma()[:9] ** 2, rtol=1e-5)


@pytest.mark.parametrize(("kind", "said"), [("GRDH", "Sigma0_VV"), ("SLC", "Sigma0_VV")])
def test_a_real_products_annotation_is_read(shared_data, kind, said):
    (root,) = (shared_data / "safe").glob(f"*{kind}*.SAFE")
    (image,) = images_in(root, ProductOptions())
    assert image.name.startswith(root.stem)
    with read_part(root, None, ProductOptions()) as scene:
        assert scene.info.words == (said,)
        if kind == "GRDH":
            assert (scene.shape, scene.info.looks) == ((16705, 26102), 4.4)
            noise = np.asarray(scene.offset(slice(8000, 8004)))
            nesz = 10 * np.log10(noise.mean())  # the mode's specification is -22 dB at worst
            assert -35 < nesz < -22
        else:
            # 9 bursts of 1,501 lines, 1,342 apart
            assert scene.info.looks == 1
            assert 12_000 < scene.shape[0] < 12_300
        assert len(scene.origin.gcps) > 100
