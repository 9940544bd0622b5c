"""Scenes in files: what is read, what is kept, and that no failure leaves a file."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
from nearflash.contract import ConfigError, DataError  # noqa: E402
from nearflash.sar.io import WriteError, open_scene, open_writer, read_array  # noqa: E402
from nearflash.sar.io import base as io_base  # noqa: E402
from PIL import Image  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

RNG = np.random.default_rng(3)


def write_tiff(path: Path, bands: np.ndarray, **options) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    with rasterio.open(path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                       dtype=bands.dtype, **options) as d:
        d.write(bands)
    return path


def copy(source: Path, target: Path, domain: str | None = None, step: int = 37, out_domain: str | None = None,
         **options) -> None:
    """Through intensity and back, in uneven runs of rows."""
    with open_scene(source, domain) as scene, open_writer(scene, target, domain=out_domain, **options) as writer:
        for band in range(scene.bands):
            for row in range(0, scene.shape[0], step):
                stop = min(row + step, scene.shape[0])
                writer.write(scene.read(slice(row, stop), band), row, band)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.npy", "a.png", "A.TIF"])
def test_amplitude_is_squared_and_returns(tmp_path, name):
    amplitude = RNG.integers(0, 256, (301, 270), dtype=np.uint8)
    source, target = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    if source.suffix == ".npy":
        np.save(source, amplitude)
    elif source.suffix == ".png":
        Image.fromarray(amplitude).save(source)
    else:
        write_tiff(source, amplitude)
    intensity, info = read_array(source)
    assert intensity.dtype == np.float32
    np.testing.assert_array_equal(intensity, amplitude.astype(float) ** 2)
    assert info.shape == (301, 270)
    assert info.domain == "amplitude"
    copy(source, target)
    np.testing.assert_array_equal(read_array(target, "amplitude")[0], intensity)
    assert left(tmp_path) == sorted([name, target.name])


def test_rows_are_the_rows_asked_for(tmp_path):
    values = RNG.gamma(1, 1, (50, 20)).astype(np.float32)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    write_tiff(tmp_path / "a.tif", values)
    for name in ("a.npy", "a.tif"):
        with open_scene(tmp_path / name, "intensity") as scene:
            np.testing.assert_array_equal(scene.read(slice(17, 33)), values[17:33])


def test_16_bit_png_keeps_its_depth(tmp_path):
    amplitude = RNG.integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(amplitude).save(tmp_path / "a.png")
    copy(tmp_path / "a.png", tmp_path / "b.png")
    got = np.asarray(Image.open(tmp_path / "b.png"))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, amplitude)


def test_whole_numbers_are_rounded_and_clipped(tmp_path):
    Image.fromarray(np.zeros((1, 4), np.uint8)).save(tmp_path / "a.png")
    with open_scene(tmp_path / "a.png") as scene, open_writer(scene, tmp_path / "b.png") as writer:
        writer.write(np.array([[1.4, 1.6, 300.0, 0.0]], np.float32) ** 2, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), [[1, 2, 255, 0]])


def test_complex_files(tmp_path):
    slc = (RNG.normal(size=(9, 7)) + 1j * RNG.normal(size=(9, 7))).astype(np.complex64)
    expected = (slc.real.astype(float) ** 2 + slc.imag.astype(float) ** 2)
    np.save(tmp_path / "c.npy", slc)
    np.save(tmp_path / "pair.npy", np.stack([slc.real, slc.imag], axis=-1))
    write_tiff(tmp_path / "c.tif", slc)
    write_tiff(tmp_path / "pair.tif", np.stack([slc.real, slc.imag]))
    for name, domain in (("c.npy", None), ("c.npy", "complex"), ("pair.npy", "complex"), ("c.tif", None),
                         ("pair.tif", "complex")):
        intensity, info = read_array(tmp_path / name, domain)
        assert info.domain == "complex"
        np.testing.assert_allclose(intensity, expected, rtol=1e-5)
    copy(tmp_path / "c.tif", tmp_path / "amplitude.tif")
    with rasterio.open(tmp_path / "amplitude.tif") as d:
        np.testing.assert_allclose(d.read(1), np.abs(slc), rtol=1e-5)
    with pytest.raises(DataError, match="complex"):
        open_scene(tmp_path / "c.tif", "amplitude")


def test_geotiff_keeps_place_and_tags(tmp_path):
    bands = RNG.gamma(1, 1, (2, 300, 280)).astype(np.float32)
    place = {"crs": "EPSG:32631", "transform": rasterio.transform.from_origin(6e5, 4.8e6, 10, 20), "nodata": -99.0}
    bands[0, 5, 5] = -99
    source = write_tiff(tmp_path / "a.tif", bands, tiled=True, blockxsize=256, blockysize=256, compress="deflate",
                        predictor=3, interleave="band", **place)
    with rasterio.open(source, "r+") as d:
        d.update_tags(SENSOR="S1A", AREA_OR_POINT="Point")
        d.update_tags(ns="ORBIT", number="12")
        d.update_tags(2, POLARISATION="VH")
        d.set_band_description(1, "VV")
        d.set_band_unit(2, "m2/m2")
    copy(source, tmp_path / "b.tif", "intensity")
    with rasterio.open(source) as a, rasterio.open(tmp_path / "b.tif") as b:
        for name in ("crs", "transform", "nodata", "descriptions", "units", "count", "shape", "bounds"):
            assert getattr(a, name) == getattr(b, name), name
        assert a.tags() == b.tags()
        assert a.tags(ns="ORBIT") == b.tags(ns="ORBIT") == {"number": "12"}
        assert b.tags(2)["POLARISATION"] == "VH"
        assert b.dtypes == ("float32", "float32")
        assert b.profile["tiled"]
        assert b.profile["compress"] == "deflate"
        np.testing.assert_array_equal(a.read(), b.read())
    # Uneven runs of rows waste no space: as small as the same tiles written at once
    write_tiff(tmp_path / "once.tif", bands, tiled=True, blockxsize=256, blockysize=256, compress="deflate", predictor=3,
               interleave="band")
    assert (tmp_path / "b.tif").stat().st_size < 1.02 * (tmp_path / "once.tif").stat().st_size + 4000


def test_gcps_and_rpcs_are_kept(tmp_path):
    values = np.ones((40, 40), np.float32)
    gcps = [GroundControlPoint(r, c, 3 + c * 1e-4, 43 - r * 1e-4, 12.0) for r in (0, 39) for c in (0, 39)]
    write_tiff(tmp_path / "g.tif", values, gcps=gcps, crs="EPSG:4326")
    coefficients = [1.0] + [0.001 * k for k in range(19)]
    rpc = RPC(height_off=10, height_scale=500, lat_off=43, lat_scale=0.1, long_off=3, long_scale=0.1, line_off=20,
              line_scale=20, samp_off=20, samp_scale=20, line_den_coeff=coefficients, line_num_coeff=coefficients,
              samp_den_coeff=coefficients, samp_num_coeff=coefficients)
    write_tiff(tmp_path / "r.tif", values, rpcs=rpc)
    for name in ("g.tif", "r.tif"):
        copy(tmp_path / name, tmp_path / f"out_{name}", "amplitude")
    with rasterio.open(tmp_path / "out_g.tif") as d:
        points, crs = d.gcps
        assert [(p.row, p.col, p.x, p.y, p.z) for p in points] == [(p.row, p.col, p.x, p.y, p.z) for p in gcps]
        assert crs.to_epsg() == 4326
    with rasterio.open(tmp_path / "out_r.tif") as d:
        assert d.rpcs.line_num_coeff == pytest.approx(coefficients)
        assert d.rpcs.height_scale == 500


def test_nan_beside_nodata_both_stay(tmp_path):
    values = RNG.gamma(1, 1, (6, 6)).astype(np.float32)
    values[1, 1], values[2, 2] = np.nan, -99
    source = write_tiff(tmp_path / "a.tif", values, nodata=-99)
    assert np.isnan(read_array(source, "intensity")[0][[1, 2], [1, 2]]).all()
    copy(source, tmp_path / "b.tif", "intensity", step=4)
    with rasterio.open(tmp_path / "b.tif") as d:
        np.testing.assert_array_equal(d.read(1), values)


def test_nodata_of_whole_numbers_becomes_a_float_tag(tmp_path):
    values = RNG.integers(1, 999, (6, 6)).astype(np.uint16)
    values[3, 3] = 65535
    copy(write_tiff(tmp_path / "a.tif", values, nodata=65535), tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert d.nodata == 65535
        assert d.dtypes == ("float32",)
        np.testing.assert_array_equal(d.read(1), values)
    copy(tmp_path / "a.tif", tmp_path / "c.tif", dtype="uint16")
    with rasterio.open(tmp_path / "c.tif") as d:
        assert d.dtypes == ("uint16",)
        np.testing.assert_array_equal(d.read(1), values)


def test_a_mask_band_marks_missing_pixels(tmp_path):
    values = RNG.gamma(1, 1, (8, 8)).astype(np.float32)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_tiff(tmp_path / "a.tif", values)
        with rasterio.open(tmp_path / "a.tif", "r+") as d:
            mask = np.full((8, 8), 255, np.uint8)
            mask[2] = 0
            d.write_mask(mask)
    intensity, _ = read_array(tmp_path / "a.tif", "intensity")
    assert np.isnan(intensity[2]).all()
    np.testing.assert_array_equal(intensity[3:], values[3:])
    copy(tmp_path / "a.tif", tmp_path / "b.tif", "intensity")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert np.isnan(d.read(1)[2]).all()


def test_declared_scale_and_offset_are_applied_and_undone(tmp_path):
    raw = RNG.integers(-3000, 0, (5, 5)).astype(np.int16)
    raw[0, 0] = -32768
    source = write_tiff(tmp_path / "a.tif", raw, nodata=-32768)
    with rasterio.open(source, "r+") as d:
        d.scales, d.offsets = (0.01,), (5.0,)
    intensity, _ = read_array(source, "db")
    np.testing.assert_allclose(intensity[1:], 10 ** ((raw[1:] * 0.01 + 5) / 10), rtol=1e-5)
    assert np.isnan(intensity[0, 0])
    copy(source, tmp_path / "b.tif", "db")
    with rasterio.open(tmp_path / "b.tif") as d:
        assert (d.scales, d.offsets) == ((0.01,), (5.0,))
        np.testing.assert_allclose(d.read(1), raw, atol=0.01)


def test_a_cog_stays_a_cog(tmp_path):
    import rasterio.shutil

    values = RNG.gamma(1, 1, (700, 600)).astype(np.float32)
    write_tiff(tmp_path / "plain.tif", values, crs="EPSG:32631",
               transform=rasterio.transform.from_origin(6e5, 4.8e6, 10, 10))
    rasterio.shutil.copy(tmp_path / "plain.tif", tmp_path / "cog.tif", driver="COG")
    copy(tmp_path / "cog.tif", tmp_path / "out.tif", "intensity")
    with rasterio.open(tmp_path / "out.tif") as d:
        assert d.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert d.overviews(1)
        np.testing.assert_array_equal(d.read(1), values)
    assert left(tmp_path) == ["cog.tif", "out.tif", "plain.tif"]


@pytest.mark.parametrize("cut", [0.02, 0.6, 0.97])
@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.png"])
def test_truncated_files_are_named(tmp_path, name, cut):
    values = RNG.integers(0, 256, (200, 200), dtype=np.uint8)
    whole, path = tmp_path / ("whole" + Path(name).suffix), tmp_path / name
    if whole.suffix == ".tif":
        write_tiff(whole, values)
    elif whole.suffix == ".npy":
        np.save(whole, values)
    else:
        Image.fromarray(values).save(whole)
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(DataError, match=path.name):
        copy(path, tmp_path / f"out{path.suffix}")
    assert left(tmp_path) == sorted([name, whole.name])


def test_bad_files_are_named(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4)))
    np.save(tmp_path / "object.npy", np.array([[{}]]), allow_pickle=True)
    (tmp_path / "text.tif").write_text("no image")
    for name, said in (("colour.png", "grey"), ("cube.npy", r"\(2, 3, 4\)"), ("empty.npy", "at least one pixel"),
                       ("object.npy", "numbers"), ("text.tif", "TIFF"), ("absent.tif", "not found")):
        with pytest.raises(DataError, match=said) as e:
            open_scene(tmp_path / name)
        assert name in str(e.value)
    with pytest.raises(ConfigError, match=r"\.tif, \.tiff, \.npy, \.png"):
        open_scene(tmp_path / "a.jpeg")
    with pytest.raises(ConfigError, match="amplitude, intensity, db, complex"):
        open_scene(tmp_path / "cube.npy", "sigma0")
    with pytest.raises(DataError, match="complex"):
        open_scene(tmp_path / "colour.png", "complex")


def test_outputs_that_cannot_be(tmp_path):
    write_tiff(tmp_path / "two.tif", np.ones((2, 4, 4), np.float32))
    write_tiff(tmp_path / "a.tif", np.array([[1, np.nan]], np.float32))
    with pytest.raises(ConfigError, match="2 bands"):
        copy(tmp_path / "two.tif", tmp_path / "o.npy", "amplitude")
    with pytest.raises(ConfigError, match="uint8 or uint16"):
        copy(tmp_path / "a.tif", tmp_path / "o.png", "amplitude")
    with pytest.raises(ConfigError, match="must end in"):
        copy(tmp_path / "a.tif", tmp_path / "o.jpg", "amplitude")
    with pytest.raises(ConfigError, match="out_domain"):
        copy(tmp_path / "a.tif", tmp_path / "o.tif", "amplitude", out_domain="complex")
    with pytest.raises(ConfigError, match="out_dtype"):
        copy(tmp_path / "a.tif", tmp_path / "o.tif", "amplitude", dtype="int7")
    with pytest.raises(DataError, match="missing pixels"):
        copy(tmp_path / "a.tif", tmp_path / "o.tif", "amplitude", dtype="uint16")
    with pytest.raises(ConfigError, match="exists already"):
        copy(tmp_path / "a.tif", tmp_path / "two.tif", "amplitude")
    assert left(tmp_path) == ["a.tif", "two.tif"]


@pytest.mark.parametrize("name", ["o.tif", "o.npy", "o.png"])
@pytest.mark.parametrize("old", [False, True])
def test_an_error_midway_leaves_what_was_there(tmp_path, name, old):
    np.save(tmp_path / "a.npy", np.ones((10, 10), np.uint8))
    if old:
        (tmp_path / name).write_bytes(b"old")

    def stop_midway() -> None:
        with open_scene(tmp_path / "a.npy") as scene, open_writer(scene, tmp_path / name, overwrite=True) as writer:
            writer.write(scene.read(slice(0, 5)), 0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_midway()
    assert left(tmp_path) == sorted(["a.npy", *([name] if old else [])])
    if old:
        assert (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["o.tif", "o.npy", "o.png"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, name):
    np.save(tmp_path / "a.npy", np.ones((10, 10), np.uint8))

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(io_base.Encoding, "encode", full)
    with pytest.raises(WriteError, match=r"No space left on device.*MB are free") as e:
        copy(tmp_path / "a.npy", tmp_path / name)
    assert name in str(e.value)
    assert left(tmp_path) == ["a.npy"]
    assert issubclass(WriteError, OSError)
    assert io_base.WriteError is WriteError


@pytest.mark.parametrize("name", ["o.tif", "o.npy"])
@pytest.mark.parametrize("room", [0.1, 0.5, 0.99])
def test_a_file_that_cannot_grow_leaves_nothing(tmp_path, name, room):
    """A real failure of the operating system's write, in another process: files there may not grow to their full size."""
    pytest.importorskip("resource")
    np.save(tmp_path / "a.npy", RNG.gamma(1, 1, (400, 400)).astype(np.float32))
    copy(tmp_path / "a.npy", tmp_path / name)
    limit = int((tmp_path / name).stat().st_size * room)
    (tmp_path / name).unlink()
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from nearflash.sar.io import WriteError, open_scene, open_writer
import rasterio
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with open_scene({str(tmp_path / 'a.npy')!r}) as scene, open_writer(scene, {str(tmp_path / name)!r}) as writer:
        for row in range(0, 400, 100):
            writer.write(scene.read(slice(row, row + 100)), row)
except WriteError as e:
    print(e)
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 7, done.stderr
    assert name in done.stdout
    assert left(tmp_path) == ["a.npy"]
