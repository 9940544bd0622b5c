"""Side-by-side comparison: its numbers, its figure and its command."""

import json
from pathlib import Path

import numpy as np
import pytest
from nearflash.cli.sar import sar
from nearflash.contract import ConfigError, DataError
from nearflash.figures import save_figure
from nearflash.sar import metrics
from nearflash.sar.compare import compare, draw
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
