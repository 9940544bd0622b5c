"""Undeclared fills, borders of zeros and the noise beside them, and intensity that noise removal left negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from nearflash.contract import ConfigError, DataError
from nearflash.sar import despeckle
from nearflash.sar.borders import Border, find_border
from nearflash.sar.fills import find_fills
from nearflash.sar.io import open_scene
from nearflash.sar.io.base import Writer
from nearflash.sar.methods import load_method
from nearflash.sar.scene import despeckle_stream

RNG = np.random.default_rng(6)


def speckle(shape: tuple[int, int] = (128, 128), looks: float = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


class Collect(Writer):
    def __init__(self, shape: tuple[int, int]):
        self.image = np.full(shape, -1, np.float32)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.image[row : row + len(intensity)] = intensity


def run(path: Path, domain: str | None = None, method: str = "lee", **options):
    with open_scene(path, domain, **options) as scene:
        writer = Collect(scene.shape)
        report = despeckle_stream(scene, writer, load_method(method), 4.0)
        return writer.image, report, scene.info


def test_what_has_its_phase_is_of_one_look(tmp_path):
    parts = np.random.default_rng(3).normal(size=(64, 64, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", parts[..., 0] + 1j * parts[..., 1])
    np.save(tmp_path / "pairs.npy", parts)
    for name, domain in (("a.npy", None), ("pairs.npy", "complex")):
        with open_scene(tmp_path / name, domain) as scene:
            assert scene.info.looks == 1.0
            report = despeckle_stream(scene, Collect(scene.shape), load_method("lee"))
            assert (report.looks, report.looks_source) == (1.0, "product")


@pytest.mark.parametrize(("fill", "domain"), [(-9999.0, "db"), (-99.0, "db"), (0.0, "intensity"), (1e20, "intensity"),
                                              (-32768.0, "amplitude"), (-1.0, "amplitude")])
def test_undeclared_fills_are_found_and_said(tmp_path, fill, domain):
    intensity = 0.05 * speckle()
    values = {"db": 10 * np.log10(intensity), "intensity": intensity, "amplitude": np.sqrt(intensity)}[domain]
    hole = np.zeros(values.shape, bool)
    hole[:20], hole[60:70, 30:50] = True, True
    np.save(tmp_path / "a.npy", np.where(hole, np.float32(fill), values))
    got, report, info = run(tmp_path / "a.npy", domain)
    assert info.nodata == np.float32(fill)
    assert any(f"{np.float32(fill):g}" in note for note in info.notes)
    np.testing.assert_array_equal(np.isnan(got), hole)
    assert report.valid_pixels == (~hole).sum()
    # Nothing of the fill reaches the land beside it
    assert got[20:24].mean() == pytest.approx(0.05, rel=0.06)
    if domain == "db":
        kept, _, info = run(tmp_path / "a.npy", domain, borders="keep")
        assert not np.isnan(kept).any()
        assert info.notes == ()


def test_what_is_no_fill(tmp_path):
    assert find_fills([speckle()], "float32") == []
    clipped = np.minimum(speckle(), 1.5)  # saturated: beside the others
    assert find_fills([clipped], "float32") == []
    whole = np.rint(speckle() * 3).astype(np.float32)  # 0 is a step like the others
    assert find_fills([whole], "float32") == []
    assert find_fills([np.where(speckle() > 1, 4.0, 0.4)], "float32") == []
    quick_look = np.rint(np.maximum(np.sqrt(speckle(looks=1)) * 60 - 26, 0)) ** 2  # 8 bits once, its dark pixels cut off
    assert (quick_look == 0).mean() > 0.1
    assert find_fills([quick_look.astype(np.float32)], "float32") == []
    assert find_fills([np.where(speckle() > 2, 0, np.rint(100 * speckle(seed=1)))], "uint16") == []
    assert find_fills([np.zeros((64, 64))], "float32") == []
    filled = np.where(speckle() > 2, 65535, np.rint(300 * speckle(seed=1)))
    assert [f.value for f in find_fills([filled], "uint16")] == [65535]
    both = np.where(speckle() > 2, -9999, np.where(speckle() < 0.2, 0, speckle(seed=1)))
    assert {f.value for f in find_fills([both], "float32")} == {0, -9999}


def test_scattered_zeros_in_floating_point_are_missing(tmp_path):
    holes = RNG.random((128, 128)) < 0.1
    np.save(tmp_path / "a.npy", np.where(holes, 0, 0.05 * speckle()).astype(np.float32))
    got, report, info = run(tmp_path / "a.npy")
    assert (info.domain, info.choice.source) == ("intensity", "test")
    np.testing.assert_array_equal(np.isnan(got), holes)
    assert report.mean_in == pytest.approx(0.05, rel=0.02)
    assert report.enl_in == pytest.approx(4, rel=0.3)


def bordered(noise: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude of a sheared product with zeros above and at the left, and what of it is land."""
    land = np.zeros((160, 400), bool)
    values = np.sqrt(speckle(land.shape)) * 250
    for row in range(160):
        land[row, 30 + row // 4 :] = True
    land[:20] = False
    values = np.where(land, values, 0)
    if noise is not None:
        strip = np.zeros(land.shape, bool)
        for row in range(20, 160):
            strip[row, 30 + row // 4 : 90 + row // 4] = True
        values = np.where(strip, np.sqrt(speckle(land.shape, 1, 3)) * noise, values)
        values[strip & (values < 1)] = 1
        land &= ~strip
    return np.rint(values).astype(np.uint16), land


def test_zero_borders_are_masked(tmp_path):
    values, land = bordered()
    values[80, 200] = 0  # a dark pixel is none
    np.save(tmp_path / "a.npy", values)
    got, _, info = run(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.isnan(got), ~land)
    assert (info.nodata, info.mark) == (None, 0)
    assert any("borders of zeros masked" in note for note in info.notes)
    assert got[40:, 80:90].mean() == pytest.approx(250**2, rel=0.1)
    kept, _, info = run(tmp_path / "a.npy", borders="keep")
    assert not np.isnan(kept).any()
    assert (kept[:10, :20] == 0).all()
    assert info.notes == ()


def test_border_noise_is_masked_with_them(tmp_path):
    values, land = bordered(noise=8)
    np.save(tmp_path / "a.npy", values)
    got, _, info = run(tmp_path / "a.npy")
    assert any("noise beside them" in note for note in info.notes)
    assert np.isnan(got[~land]).mean() > 0.99
    assert np.isnan(got[land]).mean() < 0.01


def test_dark_land_without_zeros_is_no_border():
    calm = speckle((64, 256))
    calm[:, :60] *= 0.003
    assert find_border([calm], float(np.median(calm))) is None
    assert not Border(0.01, 0, False).mask(calm).any()
    quick_look = np.where(speckle((200, 200), 1) < 0.37, 0, speckle((200, 200), 1))  # 31 % zeros
    assert find_border([quick_look], 1.0) is None
    # Nor is what is missing anyway, though zeros are in the land beside it
    sheared = np.where(np.arange(200) < 30, np.nan, quick_look)
    assert find_border([sheared], 1.0) is None


def noise_removed(noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    clean = np.full((160, 160), 0.05, np.float32)
    clean[:, :80] = 0.002  # far below the noise
    return clean, ((clean + noise) * speckle(clean.shape) - noise).astype(np.float32)


def test_negative_intensity_is_noise_about_zero(tmp_path):
    clean, values = noise_removed()
    np.save(tmp_path / "a.npy", values)
    got, report, info = run(tmp_path / "a.npy", "intensity")
    for part in (np.s_[8:-8, 8:72], np.s_[8:-8, 88:-8]):
        assert got[part].mean() == pytest.approx(clean[part].mean(), abs=0.0015)
    assert report.mean_in == pytest.approx(float(values.mean(dtype=float)), rel=1e-4)
    assert any("kept as noise" in note for note in info.notes)
    assert report.enl_in == pytest.approx(4, rel=0.3)  # of what speckle multiplies
    clipped, _, _ = run(tmp_path / "a.npy", "intensity", negatives="clip")
    assert clipped[8:-8, 8:72].mean() > 0.004  # what clipping costs: twice the truth
    masked, report, _ = run(tmp_path / "a.npy", "intensity", negatives="mask")
    np.testing.assert_array_equal(np.isnan(masked), values < 0)
    with pytest.raises(DataError, match="negatives keep"):
        run(tmp_path / "a.npy", "intensity", negatives="error")
    with pytest.raises(DataError, match="at least 0 for domain amplitude"):
        run(tmp_path / "a.npy", "amplitude")
    np.save(tmp_path / "b.npy", -values)
    with pytest.raises(DataError, match="at least 0"):
        run(tmp_path / "b.npy", "intensity")


def test_unknown_policies_are_named():
    for options in ({"borders": "cut"}, {"negatives": "fold"}):
        with pytest.raises(ConfigError, match="must be one of"):
            despeckle(speckle(), domain="intensity", method="none", **options)
