"""nearflash despeckle, from the command line to the files."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
rasterio = pytest.importorskip("rasterio")
typer = pytest.importorskip("typer")
from nearflash.cli.despeckle import despeckle  # noqa: E402
from nearflash.contract import ConfigError  # noqa: E402
from nearflash.sar.cluster import run_jobs  # noqa: E402
from nearflash.sar.files import Settings, find_inputs, plan_jobs  # noqa: E402
from nearflash.sar.methods import load_method  # noqa: E402
from PIL import Image  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

app = typer.Typer()
app.command()(despeckle)
AMPLITUDE = np.sqrt(np.random.default_rng(0).gamma(4, 1 / 4, (90, 110)) * 1e4).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes = tmp_path / "in"
    scenes.mkdir()
    with rasterio.open(scenes / "a.tif", "w", driver="GTiff", count=1, height=90, width=110, dtype="float32",
                       crs="EPSG:32631", nodata=-1) as d:
        d.write(np.where(np.arange(110) < 5, -1, AMPLITUDE).astype(np.float32), 1)
    np.save(scenes / "b.npy", AMPLITUDE[::-1])
    Image.fromarray(AMPLITUDE.clip(0, 255).astype(np.uint8)).save(scenes / "c.png")
    (scenes / "notes.txt").write_text("no image")
    return scenes


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_one_file_with_ratio_and_json(folder, tmp_path):
    out, ratio, report = tmp_path / "clean.tif", tmp_path / "ratio.tif", tmp_path / "r.json"
    result = run(folder / "a.tif", "-o", out, "--method", "lee", "--looks", 4, "--ratio", ratio, "--json", report)
    valid = AMPLITUDE[:, 5:]
    with rasterio.open(out) as d, rasterio.open(ratio) as r:
        clean, ratios = d.read(1), r.read(1)
        assert (d.nodata, d.crs.to_epsg()) == (-1, 32631)
        assert (r.nodata, r.crs.to_epsg()) == (-1, 32631)
    assert (clean[:, :5] == -1).all()
    # Away from the missing columns: the filter itself, on the whole image
    expected = np.sqrt(load_method("lee")((valid**2).astype(np.float32), 4.0))
    np.testing.assert_allclose(clean[:, 15:], expected[:, 10:], rtol=1e-4)
    np.testing.assert_allclose(ratios[:, 5:], valid**2 / clean[:, 5:] ** 2, rtol=1e-3)
    got = json.loads(report.read_text())
    assert got["failed_files"] == 0
    (file,) = got["files"]
    assert (file["height_px"], file["width_px"], file["error"]) == (90, 110, None)
    (band,) = file["bands"]
    assert band["valid_pixels"] == 90 * 105
    assert band["mean_in_intensity"] == pytest.approx((valid.astype(float) ** 2).mean(), rel=1e-6)
    assert band["mean_out_intensity"] == pytest.approx((clean[:, 5:].astype(float) ** 2).mean(), rel=1e-5)
    assert file["mean_kept_ratio"] == pytest.approx(band["mean_out_intensity"] / band["mean_in_intensity"])
    assert band["enl_in_looks"] == pytest.approx(4, rel=0.4)
    assert band["enl_out_looks"] > 2 * band["enl_in_looks"]
    assert (band["looks"], band["looks_source"]) == (4, "given")
    assert file["megapixels_per_second"] == pytest.approx(90 * 110 / 1e6 / file["seconds"])
    assert "a.tif" in result.output
    assert "90x110" in result.output


def test_a_folder_and_a_pattern(folder, tmp_path):
    run(folder, "-o", tmp_path / "out", "--method", "lee")
    assert names(tmp_path / "out") == ["a.tif", "b.npy", "c.png"]
    run(str(folder / "*.npy"), "-o", tmp_path / "more", "--method", "none", "--ratio", tmp_path / "ratios")
    assert names(tmp_path / "more") == ["b.npy"]
    assert names(tmp_path / "ratios") == ["b.tif"]
    np.testing.assert_array_equal(np.load(tmp_path / "more" / "b.npy"), AMPLITUDE[::-1])
    with rasterio.open(tmp_path / "ratios" / "b.tif") as d:
        np.testing.assert_array_equal(d.read(1), 1)


def test_one_bad_file_does_not_stop_the_others(folder, tmp_path):
    np.save(folder / "bad.npy", -AMPLITUDE)
    np.save(folder / "nothing.npy", AMPLITUDE * np.nan)
    (folder / "broken.tif").write_bytes((folder / "a.tif").read_bytes()[:2000])
    result = run(folder, "-o", tmp_path / "out", "--method", "none", "--json", tmp_path / "r.json", code=1)
    assert names(tmp_path / "out") == ["a.tif", "b.npy", "c.png"]
    got = json.loads((tmp_path / "r.json").read_text())
    assert got["failed_files"] == 3
    errors = {Path(f["input"]).name: f["error"] for f in got["files"] if f["error"]}
    assert sorted(errors) == ["bad.npy", "broken.tif", "nothing.npy"]
    assert "Choose --domain" in errors["bad.npy"]  # far below what decibel can be, and no intensity
    assert "valid pixel" in errors["nothing.npy"]
    assert "broken.tif" in errors["broken.tif"]
    assert "bad.npy" in result.output


def test_nothing_is_overwritten_unless_told(folder, tmp_path):
    out = tmp_path / "b.npy"
    out.write_bytes(b"mine")
    run(folder / "b.npy", "-o", out, "--method", "none", code=1)
    assert out.read_bytes() == b"mine"
    run(folder / "b.npy", "-o", out, "--method", "none", "--overwrite")
    np.testing.assert_array_equal(np.load(out), AMPLITUDE[::-1])
    for args in ((folder / "b.npy", "-o", folder / "b.npy"), (folder, "-o", folder)):
        result = CliRunner().invoke(app, [*map(str, args), "--method", "none", "--overwrite"])
        assert isinstance(result.exception, ConfigError)
        assert "is the input itself" in str(result.exception)
    np.testing.assert_array_equal(np.load(folder / "b.npy"), AMPLITUDE[::-1])


@pytest.mark.parametrize(("options", "said"), [
    (["--method", "leet"], "refined-lee"), (["--domain", "power"], "amplitude, intensity, db, complex"),
    (["--looks", "few"], "looks"), (["--out-domain", "complex"], "out_domain"), (["--out-dtype", "half"], "float32"),
    (["--db-scale", "0"], "db_scale"), (["--match-mean", "yes"], "local"), (["--cluster", "abacus"], "dask, ray"),
    (["--method", "lee", "--checkpoint", "x.npz"], "checkpoint"),
])
def test_impossible_settings_stop_before_the_first_file(folder, tmp_path, options, said):
    result = CliRunner().invoke(app, [str(folder), "-o", str(tmp_path / "out"), "--method", "none", *options])
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_tile_too_small_fails_the_file_and_leaves_nothing(folder, tmp_path):
    result = run(folder / "a.tif", "-o", tmp_path / "o.tif", "--method", "lee", "--tile", 20, code=1)
    assert "tile" in result.output
    assert names(tmp_path) == ["in"]


def test_domains_and_types(folder, tmp_path):
    np.save(folder / "db10.npy", np.round(200 * np.log10(AMPLITUDE)).astype(np.int32))
    run(folder / "db10.npy", "-o", tmp_path / "i.npy", "--domain", "db", "--db-scale", 10, "--out-domain", "intensity",
        "--method", "none")
    np.testing.assert_allclose(np.load(tmp_path / "i.npy"), AMPLITUDE.astype(float) ** 2, rtol=0.012)  # 0.05 dB of rounding
    run(folder / "b.npy", "-o", tmp_path / "u.tif", "--out-dtype", "uint16", "--method", "none")
    with rasterio.open(tmp_path / "u.tif") as d:
        assert d.dtypes == ("uint16",)
        np.testing.assert_array_equal(d.read(1), np.rint(AMPLITUDE[::-1]))


def test_every_band_is_done(tmp_path):
    bands = np.stack([AMPLITUDE, AMPLITUDE[:, ::-1], np.full_like(AMPLITUDE, np.nan)])
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=3, height=90, width=110, dtype="float32") as d:
        d.write(bands)
        d.set_band_description(2, "VH")
    run(tmp_path / "a.tif", "-o", tmp_path / "o.tif", "--method", "lee", "--looks", 4, "--json", tmp_path / "r.json")
    with rasterio.open(tmp_path / "o.tif") as d:
        assert d.descriptions == (None, "VH", None)
        for k in (1, 2):
            expected = np.sqrt(load_method("lee")(bands[k - 1] ** 2, 4.0))
            np.testing.assert_allclose(d.read(k), expected, rtol=1e-4)
        assert np.isnan(d.read(3)).all()
    (file,) = json.loads((tmp_path / "r.json").read_text())["files"]
    assert [b["valid_pixels"] for b in file["bands"]] == [9900, 9900, 0]
    assert file["bands"][2]["mean_in_intensity"] is None


def test_inputs_and_outputs_are_paired(folder, tmp_path):
    assert [p.name for p in find_inputs([str(folder / "b.npy"), str(folder)])] == ["b.npy", "a.tif", "c.png"]
    (tmp_path / "empty").mkdir()
    for bad in (str(tmp_path / "empty"), str(tmp_path / "*.tif")):
        with pytest.raises(ConfigError, match="at least one file"):
            find_inputs([bad])
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "b.npy", AMPLITUDE)
    with pytest.raises(ConfigError, match="for both"):
        plan_jobs([str(folder), str(other)], tmp_path / "out", Settings("none"))
    (tmp_path / "file.tif").write_text("")
    with pytest.raises(ConfigError, match="must be a folder"):
        plan_jobs([str(folder)], tmp_path / "file.tif", Settings("none"))
    for out in (other, tmp_path / "new"):  # a name without a suffix is a folder's, be it there or not
        (job,) = plan_jobs([str(folder / "a.tif")], out, Settings("none"))
        assert job.target == out / "a.tif"
    (tmp_path / "plain").write_text("")
    with pytest.raises(ConfigError, match="or end in"):
        plan_jobs([str(folder / "a.tif")], tmp_path / "plain", Settings("none"))


@pytest.mark.parametrize(("kind", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_writes_the_same_files(folder, tmp_path, monkeypatch, kind, module):
    pytest.importorskip(module, reason=f"{module} is not installed: the {kind} cluster is not tested")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a cluster of this machine alone: no token file in the home folder
    np.save(folder / "bad.npy", -AMPLITUDE)
    run(folder, "-o", tmp_path / "here", "--method", "lee", code=1)
    run(folder, "-o", tmp_path / "there", "--method", "lee", "--cluster", kind, "--workers", 1, "--json",
        tmp_path / "r.json", code=1)
    assert names(tmp_path / "here") == names(tmp_path / "there") == ["a.tif", "b.npy", "c.png"]
    read = {".tif": lambda f: rasterio.open(f).read(), ".npy": np.load, ".png": lambda f: np.asarray(Image.open(f))}
    for name in names(tmp_path / "here"):
        pixels = [read[Path(name).suffix](tmp_path / d / name) for d in ("here", "there")]
        assert np.array_equal(*pixels, equal_nan=pixels[0].dtype.kind == "f"), name
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    files = json.loads((tmp_path / "r.json").read_text())["files"]
    assert [Path(f["input"]).name for f in files] == ["a.tif", "b.npy", "bad.npy", "c.png"]
    assert [f["error"] is None for f in files] == [True, True, False, True]


@pytest.mark.parametrize(("kind", "module", "said"), [("dask", "distributed", "pip install 'dask"),
                                                      ("ray", "ray", "pip install ray")])
def test_a_cluster_that_is_not_installed_says_what_to_install(monkeypatch, kind, module, said):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=said):
        list(run_jobs([], kind))


def test_outputs_lead_through_links_and_pipes(folder, tmp_path):
    link, fifo, got = tmp_path / "link.npy", tmp_path / "fifo.npy", []
    link.symlink_to("real.npy")
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    run(folder / "b.npy", "-o", link, "--method", "none", "--looks", 4)
    run(folder / "b.npy", "-o", fifo, "--method", "none", "--looks", 4)
    reader.join(30)
    assert link.is_symlink()
    assert got == [(tmp_path / "real.npy").read_bytes()]
    assert names(tmp_path) == ["fifo.npy", "in", "link.npy", "real.npy"]
