"""Side-by-side comparison: its numbers, its figure and its command."""

import json
from pathlib import Path

import numpy as np
import pytest
from nearflash.cli.sar import sar
from nearflash.contract import ConfigError, DataError
from nearflash.figures import save_figure
from nearflash.sar import metrics
from nearflash.sar.compare import brightest, compare, draw, view
from PIL import Image
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    image = np.full((96, 128), 0.04, np.float32)
    image[:, 64:] = 0.4
    return image


@pytest.fixture(scope="module")
def noisy(clean: np.ndarray) -> np.ndarray:
    return (clean * np.random.default_rng(0).gamma(4, 1 / 4, clean.shape)).astype(np.float32)


def test_numbers(clean: np.ndarray, noisy: np.ndarray) -> None:
    heard = []
    result = compare(noisy, ["none", "kuan"], 4, clean=clean, note=lambda *what: heard.append(what))
    assert heard == [(0, 2, "none"), (1, 2, "kuan"), (2, 2, "")]
    assert list(result.outputs) == list(result.metrics) == ["none", "kuan"]
    np.testing.assert_allclose(result.outputs["none"], noisy, rtol=1e-5)
    m = result.metrics["kuan"]
    mse = [np.mean((np.clip(np.sqrt(i), 0, 1) - np.sqrt(clean)) ** 2) for i in (result.outputs["kuan"], noisy)]
    assert m["psnr_db"] == pytest.approx(-10 * np.log10(mse[0]), abs=1e-3)
    mse[1] = np.mean((np.sqrt(noisy) - np.sqrt(clean)) ** 2)
    assert m["dg_db"] == pytest.approx(10 * np.log10(mse[1] / mse[0]), abs=1e-3)
    window = result.windows[0]
    assert m["enl_in"] == pytest.approx(np.median([metrics.enl(noisy[w]) for w in result.windows]))
    assert noisy[window].shape == (32, 32)
    assert m["enl_gain"] > 5
    assert m["ratio_mean"] == pytest.approx(1, abs=0.03)


def test_figure_has_every_picture(clean: np.ndarray, noisy: np.ndarray) -> None:
    result = compare(noisy, ["lee", "kuan", "frost", "gamma-map", "refined-lee"], 4, clean=clean)
    figure = draw(result, row=10)
    pictures = [a for a in figure.axes if a.images]
    assert len(pictures) == 2 + 2 * 5  # input, clean, five outputs and five ratios
    shown = [np.asarray(a.images[0].get_array()) for a in pictures]
    np.testing.assert_allclose(shown[0], np.sqrt(noisy))
    for name, out in result.outputs.items():
        assert any(np.allclose(s, np.sqrt(out)) for s in shown), name
        assert any(np.allclose(s, noisy / out, rtol=1e-4) for s in shown), name
    profile = next(a for a in figure.axes if a.get_title(loc="left") == "profile along row 10")
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in profile.lines}
    np.testing.assert_allclose(lines["frost"], np.sqrt(result.outputs["frost"][10]))
    assert set(lines) == {"input", "clean", *result.outputs}
    with pytest.raises(ConfigError, match="row = 96"):
        draw(result, row=96)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (50, 2), (40, 40)])
def test_any_size_and_missing_pixels(shape: tuple[int, int], tmp_path: Path) -> None:
    image = np.random.default_rng(1).gamma(1, 1, shape).astype(np.float32)
    if image.size > 1000:
        image[:5] = np.nan
    result = compare(image, ["lee"], 1, clean=np.ones(shape, np.float32))
    np.testing.assert_array_equal(np.isnan(result.outputs["lee"]), np.isnan(image))
    assert result.metrics["lee"]["ssim"] is None
    save_figure(draw(result), tmp_path / "new" / "figure.png")
    assert Image.open(tmp_path / "new" / "figure.png").size[0] > 300
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["figure.png"]


def test_bad_settings_are_named(noisy: np.ndarray, tmp_path: Path) -> None:
    for methods in ([], ["lee", "lee"]):
        with pytest.raises(ConfigError, match="methods"):
            compare(noisy, methods, 1)
    with pytest.raises(ConfigError, match="must be one of base"):
        compare(noisy, ["median"], 1)
    with pytest.raises(DataError, match="clean"):
        compare(noisy, ["lee"], 1, clean=noisy[1:])
    with pytest.raises(ConfigError, match="figure"):
        save_figure(draw(compare(noisy, ["lee"], 4)), tmp_path / "figure.xyz")


def test_command(clean: np.ndarray, noisy: np.ndarray, tmp_path: Path) -> None:
    def run(*options: str) -> dict:
        ran = CliRunner().invoke(sar, ["compare", *options, "--looks", "4", "-o", str(tmp_path / "f.png"), "--json",
                                       str(tmp_path / "f.json")], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        assert "EPD-ROA" in ran.output
        assert (tmp_path / "f.png").is_file()
        return json.loads((tmp_path / "f.json").read_text())

    np.save(tmp_path / "noisy.npy", noisy)
    np.save(tmp_path / "clean.npy", clean)
    given = run(str(tmp_path / "noisy.npy"), "--domain", "intensity", "--clean", str(tmp_path / "clean.npy"), "--methods",
                "lee,nlm")
    peak = float(clean.max())  # floats: the data range is the truth's largest amplitude
    by_hand = compare(noisy, ["lee"], 4, clean=clean, peak=np.sqrt(peak)).metrics["lee"]
    assert given["methods"]["lee"]["psnr_db"] == pytest.approx(by_hand["psnr_db"], abs=1e-3)
    assert set(given["methods"]) == {"lee", "nlm"}
    assert len(given["windows"]) == given["methods"]["lee"]["windows_count"]

    Image.fromarray((255 * np.sqrt(clean)).astype(np.uint8)).save(tmp_path / "clean.png")
    simulated = run(str(tmp_path / "clean.png"), "--simulate", "--methods", "lee", "--row", "3")
    assert simulated["methods"]["lee"]["psnr_db"] > 22
    assert simulated["methods"]["lee"]["dg_db"] > 4


def test_a_part_of_the_image_is_shown(noisy: np.ndarray) -> None:
    result = compare(noisy, ["lee"], 4)
    zoom = view("10,40,20,30", noisy.shape, "--zoom")
    figure = draw(result, row=15, zoom=zoom)
    first, output = (a for a in figure.axes if a.images and a.images[0].get_cmap().name == "gray")
    np.testing.assert_allclose(np.asarray(first.images[0].get_array()), np.sqrt(noisy[10:30, 40:70]))
    assert output.get_xlim() == first.get_xlim() == (39.5, 69.5)  # pixels keep their numbers
    assert first.get_ylim() == (29.5, 9.5)
    profile = next(a for a in figure.axes if a.get_title(loc="left").startswith("profile"))
    assert profile.get_xlim() == (40, 69)
    for bad, said in (("1,2,3", "height,width"), ("0,0,97,5", "96 rows"), ("-1,0,5,5", "inside"), ("0,0,0,5", "inside")):
        with pytest.raises(ConfigError, match=said):
            view(bad, (96, 128), "--zoom")


def test_targets_darken_nothing(noisy: np.ndarray) -> None:
    plain = brightest(noisy)
    for count in (1, 60):  # 60 of 12,288 pixels: half a percent, with its sidelobes a target in a small crop
        bright = noisy.copy()
        bright[:count, 5] = 1e6
        assert brightest(bright) < 1.3 * plain
        profile = next(a for a in draw(compare(bright, ["none"], 4), row=0).axes
                       if a.get_title(loc="left").startswith("profile"))
        assert profile.get_ylim()[1] < 2 * np.sqrt(noisy.max())
    assert brightest(np.full((4, 4), np.nan)) == 1
    assert brightest(np.zeros((4, 4))) == 1


def test_command_takes_a_band_of_a_product_as_it_is(noisy: np.ndarray, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    decibel = 10 * np.log10(noisy)
    decibel[:16] = -99
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=2, height=96, width=128, dtype="float32") as d:
        d.write(np.stack([np.zeros_like(noisy) - 3, decibel]))
        d.set_band_description(2, "Sigma0_VV_db")

    def run(*options: str) -> dict:
        ran = CliRunner().invoke(sar, ["compare", str(tmp_path / "a.tif"), "--methods", "lee", "-o", str(tmp_path / "f.png"),
                                       "--json", str(tmp_path / "f.json"), *options], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return {"output": ran.output, **json.loads((tmp_path / "f.json").read_text())}

    whole = run("--band", "2", "--nodata", "-99")
    assert whole["domain"] == "db"
    assert whole["looks"] == pytest.approx(4, rel=0.25)  # estimated, and said so
    assert "estimated" in whole["output"]
    valid = noisy[16:]
    expected = compare(valid, ["lee"], whole["looks"]).metrics["lee"]
    cropped = run("--band", "2", "--nodata", "-99", "--crop", "16,0,80,128", "--looks", str(whole["looks"]), "--zoom",
                  "0,0,20,20")
    assert cropped["methods"]["lee"]["enl_out"] == pytest.approx(expected["enl_out"], rel=1e-3)
    for options, said in ((["--band", "3"], "must be from 0 to 1"), (["--band", "2", "--crop", "90,0,10,10"], "--crop")):
        refused = CliRunner().invoke(sar, ["compare", str(tmp_path / "a.tif"), "--methods", "lee", "-o",
                                           str(tmp_path / "g.png"), *options])
        assert said in str(refused.exception)
