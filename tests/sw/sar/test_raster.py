"""What a raster has beside its pixels: sidecars, masks, alpha, pages, blocks, scales; complex integers; narrow types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
rasterio = pytest.importorskip("rasterio")
typer = pytest.importorskip("typer")
from nearflash.cli.despeckle import despeckle  # noqa: E402
from nearflash.contract import ConfigError, DataError  # noqa: E402
from nearflash.sar.io import open_scene, open_writer, read_array  # noqa: E402
from PIL import Image  # noqa: E402
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

app = typer.Typer()
app.command()(despeckle)
RNG = np.random.default_rng(9)
PLACE = rasterio.transform.from_origin(5e5, 5e6, 10, 10)


def amplitude(shape: tuple[int, int] = (96, 112), looks: float = 4) -> np.ndarray:
    return np.sqrt(RNG.gamma(looks, 1 / looks, shape)).astype(np.float32)


def write(path: Path, bands: np.ndarray, **options) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    with rasterio.open(path, "w", driver="GTiff", **{"count": len(bands), "height": bands.shape[1], "width": bands.shape[2],
                                                     "dtype": bands.dtype, **options}) as d:
        d.write(bands)
    return path


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in (*args, "--method", "none", "--looks", 4)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64", "complex128"])
def test_every_complex_type_is_an_slc(tmp_path, dtype):
    slc = np.rint(RNG.normal(size=(2, 60, 70)) * 300)
    slc = (slc[0] + 1j * slc[1]).astype(np.complex128 if dtype == "complex128" else np.complex64)
    write(tmp_path / "a.tif", slc, dtype=dtype)
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.dtypes == ("float32",)
        np.testing.assert_allclose(d.read(1), np.abs(slc), rtol=1e-5)


def test_a_file_that_fails_for_a_reason_nobody_thought_of_ends_no_batch(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        write(folder / name, amplitude())
    from nearflash.sar.io.raster import RasterScene

    read = RasterScene.raw

    def broken(self, rows, band=0):
        if self.info.path.name == "b.tif":
            raise KeyError("nobody thought of this")
        return read(self, rows, band)

    monkeypatch.setattr(RasterScene, "raw", broken)
    output = run(folder, "-o", tmp_path / "out", code=1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    assert "unexpected KeyError" in output


def test_sidecars_belong_to_their_image(tmp_path):
    values = amplitude()
    for name in ("world.tif", "pam.tif"):
        write(tmp_path / name, values)
    (tmp_path / "world.tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    values[:10] = -1
    write(tmp_path / "pam.tif", values)
    (tmp_path / "pam.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32632</SRS><GeoTransform>5e5,10,0,5e6,0,-10</GeoTransform><PAMRasterBand band=\"1\">"
        "<Description>VV</Description><NoDataValue>-1</NoDataValue></PAMRasterBand></PAMDataset>")
    for name in ("world.tif", "pam.tif"):
        run(tmp_path / name, "-o", tmp_path / "out" / name, "--domain", "amplitude")
        with rasterio.open(tmp_path / "out" / name) as d:
            assert d.transform == PLACE
            if name == "pam.tif":
                assert (d.crs.to_epsg(), d.nodata, d.descriptions) == (32632, -1, ("VV",))
                np.testing.assert_allclose(d.read(1), values, rtol=1e-6)


def test_an_external_mask_masks_and_is_kept(tmp_path):
    values = amplitude()
    values[:24] *= 3  # what lies under the mask counts for nothing
    write(tmp_path / "a.tif", values)
    mask = np.full(values.shape, 255, np.uint8)
    mask[:24] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "a.tif", "r+") as d:
        d.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists()
    intensity, _ = read_array(tmp_path / "a.tif", "amplitude")
    np.testing.assert_array_equal(np.isnan(intensity), mask == 0)
    run(tmp_path / "a.tif", "-o", tmp_path / "o" / "b.tif", "--domain", "amplitude")
    run(tmp_path / "a.tif", "-o", tmp_path / "o" / "c.tif", "--domain", "amplitude", "--out-dtype", "uint16",
        "--out-scale", "0.001")
    for name in ("b.tif", "c.tif"):
        with rasterio.open(tmp_path / "o" / name) as d:
            np.testing.assert_array_equal(d.read_masks(1), mask)
            np.testing.assert_allclose(d.read(1)[24:] * d.scales[0], values[24:], atol=0.0006)
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["b.tif", "c.tif"]


def test_alpha_is_no_band_and_stays(tmp_path):
    grey = np.rint(amplitude() * 100).clip(1, 255).astype(np.uint8)
    alpha = np.full(grey.shape, 255, np.uint8)
    alpha[:30] = 0
    write(tmp_path / "a.tif", np.stack([grey, alpha]), photometric="minisblack")
    with rasterio.open(tmp_path / "a.tif", "r+") as d:
        d.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.count == 2
        assert d.colorinterp[1] is ColorInterp.alpha
        np.testing.assert_array_equal(d.read(2), alpha)
        np.testing.assert_array_equal(d.read_masks(1), alpha)
        np.testing.assert_allclose(d.read(1)[30:], grey[30:], rtol=1e-5)
        assert np.isnan(d.read(1)[:30]).all()
    for dtype, count in (("uint8", 2), ("uint16", 2), ("int16", 1)):
        run(tmp_path / "a.tif", "-o", tmp_path / f"{dtype}.tif", "--out-dtype", dtype)
        with rasterio.open(tmp_path / f"{dtype}.tif") as d:
            assert (d.count, d.dtypes[0]) == (count, dtype)
            np.testing.assert_array_equal(d.read_masks(1), alpha)
            np.testing.assert_array_equal(d.read(1)[30:], grey[30:])
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    run(tmp_path / "a.png", "-o", tmp_path / "b.png")
    got = np.asarray(Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(got[..., 1], alpha)
    np.testing.assert_array_equal(got[30:, :, 0], grey[30:])


def test_colour_pictures_are_no_sar(tmp_path):
    colours = RNG.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    write(tmp_path / "rgb.tif", colours, photometric="rgb")
    write(tmp_path / "palette.tif", colours[0], photometric="palette")
    with rasterio.open(tmp_path / "palette.tif", "r+") as d:
        d.write_colormap(1, {k: (k, 0, 255 - k, 255) for k in range(256)})
    for name in ("rgb.tif", "palette.tif"):
        with pytest.raises(DataError, match="must be grey: a colour picture"):
            open_scene(tmp_path / name)
    three = write(tmp_path / "three.tif", colours, photometric="minisblack")
    with open_scene(three) as scene:
        assert scene.bands == 3


def test_pages_are_bands(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pages = np.stack([amplitude(), 2 * amplitude(), 3 * amplitude()])
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack", metadata=None)
    with rasterio.open(tmp_path / "stack.tif") as d:
        assert d.count == 1  # as GDAL sees it: one image, and there the others were lost
    output = run(tmp_path / "stack.tif", "-o", tmp_path / "o.tif", "--domain", "amplitude")
    with rasterio.open(tmp_path / "o.tif") as d:
        np.testing.assert_allclose(d.read(), pages, rtol=1e-6)
    assert "3 pages" in output
    with tifffile.TiffWriter(tmp_path / "odd.tif") as writer:
        writer.write(pages[0], metadata=None)
        writer.write(pages[1][:50], metadata=None)
    with pytest.raises(DataError, match=r"96x112x1, 50x112x1.*same size"):
        open_scene(tmp_path / "odd.tif", "amplitude")


@pytest.mark.parametrize("layout", [
    {"compress": "zstd", "tiled": True, "blockxsize": 128, "blockysize": 128}, {"compress": "lzw"},
    {"tiled": True, "blockxsize": 512, "blockysize": 256}, {"blockysize": 5}, {},
])
def test_compression_and_blocks_stay(tmp_path, layout):
    values = amplitude((530, 600))
    write(tmp_path / "a.tif", values, **layout)
    with open_scene(tmp_path / "a.tif", "amplitude") as scene, open_writer(scene, tmp_path / "b.tif") as writer:
        for row in range(0, 530, 77):
            writer.write(scene.read(slice(row, min(row + 77, 530))), row)
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert a.block_shapes == b.block_shapes
        assert a.profile.get("compress") == b.profile.get("compress")
        np.testing.assert_allclose(b.read(1), values, rtol=1e-6)


def test_overviews_stay(tmp_path):
    values = amplitude((600, 600))
    write(tmp_path / "a.tif", values)
    with rasterio.open(tmp_path / "a.tif", "r+") as d:
        d.build_overviews([2, 4], Resampling.nearest)
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--domain", "amplitude")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.overviews(1) == [2, 4]
        half = d.read(1, out_shape=(300, 300))
    np.testing.assert_allclose(half, values.reshape(300, 2, 300, 2).mean((1, 3)), rtol=1e-5)


def test_a_type_that_would_crush_the_values_is_refused_or_scaled(tmp_path):
    sigma0 = (0.05 * amplitude() ** 2).astype(np.float32)
    write(tmp_path / "a.tif", sigma0)
    output = run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--domain", "intensity", "--out-dtype", "uint16", code=1)
    assert "would crush" in output
    assert "--out-scale auto" in output
    scaled = ("--domain", "intensity", "--out-dtype", "uint16", "--out-scale", "auto")
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", *scaled)
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.dtypes == ("uint16",)
        np.testing.assert_allclose(d.read(1) * d.scales[0] + d.offsets[0], sigma0, atol=0.6 * d.scales[0])
        assert sigma0.max() / d.scales[0] > 4000  # the type's range is used
    # Bright intensity overflows 8 bits as surely
    bright = write(tmp_path / "bright.tif", sigma0 * 1e6)
    narrow = ("--domain", "intensity", "--out-dtype", "uint8")
    assert "beyond its limits" in run(bright, "-o", tmp_path / "c.tif", *narrow, code=1)
    run(bright, "-o", tmp_path / "d.tif", *narrow, "--out-domain", "db", "--out-scale", "auto")
    with rasterio.open(tmp_path / "d.tif") as d:
        decibel = d.read(1) * d.scales[0] + d.offsets[0]
        np.testing.assert_allclose(decibel, 10 * np.log10(sigma0 * 1e6), atol=0.6 * d.scales[0])
        assert d.units == ("dB",)
    for options, said in ((["--out-scale", "2"], "whole number type"),
                          (["--out-dtype", "uint8", "--out-scale", "no"], "auto")):
        result = CliRunner().invoke(app, [str(bright), "-o", str(tmp_path / "e.tif"), "--domain", "intensity", *options])
        assert said in result.output + str(result.exception)


@pytest.mark.parametrize("nodata", [0, 3])
def test_nodata_never_lands_on_a_valid_pixel(tmp_path, nodata):
    decibel = np.linspace(-12, 15, 96 * 112, dtype=np.float32).reshape(96, 112)
    decibel[:8] = nodata
    valid = np.ones(decibel.shape, bool)
    valid[:8] = False
    write(tmp_path / "a.tif", decibel, nodata=nodata)
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--domain", "db", "--out-dtype", "int16")
    with rasterio.open(tmp_path / "b.tif") as d:
        got = d.read(1)
        assert d.nodata == nodata
    np.testing.assert_array_equal(got == nodata, ~valid)
    assert np.abs(got - decibel)[valid].max() <= 1
    run(tmp_path / "a.tif", "-o", tmp_path / "c.tif", "--domain", "db")
    with rasterio.open(tmp_path / "c.tif") as d:
        np.testing.assert_array_equal(d.read(1) == nodata, ~valid)
    np.save(tmp_path / "e.npy", np.zeros((4, 4), np.float32))
    with open_scene(tmp_path / "e.npy", "amplitude", nodata=0) as scene, open_writer(scene, tmp_path / "f.npy") as writer:
        writer.write(np.zeros((4, 4), np.float32), 0)
    assert (np.load(tmp_path / "f.npy") > 0).all()  # the least amplitude, none below 0


def test_another_domains_words_do_not_stay(tmp_path):
    write(tmp_path / "a.tif", (10 * np.log10(0.05 * amplitude() ** 2)).astype(np.float32))
    with rasterio.open(tmp_path / "a.tif", "r+") as d:
        d.set_band_description(1, "Sigma0_VV_db")
        d.set_band_unit(1, "dB")
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--out-domain", "amplitude")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.descriptions == (None,)
        assert d.units == (None,)
    with open_scene(tmp_path / "b.tif") as scene:
        assert scene.info.choice is not None
        assert (scene.info.domain, scene.info.choice.source) == ("amplitude", "product")


@pytest.mark.parametrize(("name", "said"), [
    ("a.dim", r"\.data folder"), ("a.zarr", "xarray"), ("a.xml", r"\.cos"),
    ("a.vrt", "GeoTIFF"), ("a.bin", "must end in"),
])
def test_formats_that_are_not_read_say_what_to_make_of_them(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ConfigError, match=said):
        open_scene(tmp_path / name)


def test_envi_images_are_read(tmp_path):
    values = (0.05 * amplitude() ** 2).astype(np.float32)
    with rasterio.open(tmp_path / "Sigma0_VV.img", "w", driver="ENVI", count=1, height=96, width=112, dtype="float32",
                       crs="EPSG:32632", transform=PLACE) as d:
        d.write(values, 1)
        d.set_band_description(1, "Sigma0_VV")
    run(tmp_path, "-o", tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "Sigma0_VV.tif") as d:
        assert (d.crs.to_epsg(), d.transform) == (32632, PLACE)
        np.testing.assert_allclose(d.read(1), values, rtol=1e-6)
    # As SNAP leaves them: an index, and images in a folder beside it
    folder = tmp_path / "scene.data"
    folder.mkdir()
    for suffix in ("img", "hdr"):
        (tmp_path / f"Sigma0_VV.{suffix}").rename(folder / f"Sigma0_VV.{suffix}")
    (folder / "i_VV.img").write_bytes(b"")
    (tmp_path / "scene.dim").write_text("<Dimap_Document/>")
    run(tmp_path / "scene.dim", "-o", tmp_path / "snap.tif")
    with rasterio.open(tmp_path / "snap.tif") as d:
        np.testing.assert_allclose(d.read(1), values, rtol=1e-6)
    run(tmp_path, "-o", tmp_path / "named")
    assert [p.name for p in (tmp_path / "named").iterdir() if p.name.startswith("scene")] == ["scene_Sigma0_VV.tif"]
    (folder / "Sigma0_VV.img").unlink()
    assert "make one in SNAP" in run(tmp_path / "scene.dim", "-o", tmp_path / "none.tif", code=1)


def test_cosar_images_are_read(tmp_path):
    """TerraSAR-X's format: big-endian 16-bit pairs, two numbers before each row, four rows of header."""
    slc = np.rint(RNG.normal(size=(40, 50, 2)) * 100)
    rows, columns = slc.shape[:2]
    length = 4 * (columns + 2)
    header = bytearray(4 * length)
    header[:28] = np.array([length * (rows + 4), 1, columns, rows, 1, length, rows + 4], ">u4").tobytes()
    header[28:32] = b"CSAR"
    header[32:36] = np.array([1], ">u4").tobytes()
    lines = [np.array([1, columns], ">u4").tobytes() + line.astype(">i2").tobytes() for line in slc]
    (tmp_path / "a.cos").write_bytes(bytes(header) + b"".join(lines))
    run(tmp_path / "a.cos", "-o", tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as d:
        np.testing.assert_allclose(d.read(1), np.hypot(slc[..., 0], slc[..., 1]), rtol=1e-5)
