"""Images in HDF5 and netCDF files: NISAR, ICEYE and others; what is said of them, where they lie, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("scipy")
rasterio = pytest.importorskip("rasterio")
typer = pytest.importorskip("typer")
from nearflash.cli.despeckle import despeckle  # noqa: E402
from nearflash.contract import ConfigError, DataError  # noqa: E402
from nearflash.sar.io import ProductOptions, images_in, open_scene, read_array, read_complex  # noqa: E402
from scipy.io import netcdf_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

app = typer.Typer()
app.command()(despeckle)
SHAPE = 60, 72
WEST, NORTH, STEP = 5e5, 4e6, 20.0


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in (*args, "--method", "none")])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def speckle(seed: int = 1, looks: float = 4) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 0.05 / looks, SHAPE).astype(np.float32)


def slc(seed: int = 1) -> np.ndarray:
    real, imaginary = np.random.default_rng(seed).normal(size=(2, *SHAPE)) * 300
    return (np.rint(real) + 1j * np.rint(imaginary)).astype(np.complex64)


def halves(values: np.ndarray) -> np.ndarray:
    """Complex numbers of 2 x 16 bits, as NISAR stores them."""
    pairs = np.empty(values.shape, np.dtype([("r", "<f2"), ("i", "<f2")]))
    pairs["r"], pairs["i"] = values.real, values.imag
    return pairs


def nisar_grid(path: Path, product: str, images: dict[str, np.ndarray], **beside: np.ndarray) -> Path:
    """A geocoded product: its pixels' middles lie half a step inside (WEST, NORTH)."""
    with h5py.File(path, "w") as file:
        for key, image in images.items():
            frequency, name = key.rsplit("/", 1) if "/" in key else ("frequencyA", key)
            group = file.require_group(f"science/LSAR/{product}/grids/{frequency}")
            group.create_dataset(name, data=image, chunks=(32, 32), compression="gzip")
            if "projection" not in group:
                group["projection"] = np.uint32(32610)
                group["projection"].attrs["epsg_code"] = 32610
                group["xCoordinates"] = WEST + STEP * (np.arange(SHAPE[1]) + 0.5)
                group["yCoordinates"] = NORTH - STEP * (np.arange(SHAPE[0]) + 0.5)
                for name, data in beside.items():
                    group[name] = data
    return path


def test_covariance_keeps_its_place_its_looks_and_its_mask(tmp_path):
    image, mask = speckle(), np.ones(SHAPE, np.uint8)
    mask[:9], mask[:, 50:] = 0, 255
    looks = np.full(SHAPE, 7.5, np.float32)
    looks[:9] = np.nan
    cross = image.astype(np.complex64)
    path = nisar_grid(tmp_path / "gcov.h5", "GCOV", {"HHHH": image, "HVHV": 2 * image, "HHHV": cross}, mask=mask,
                      numberOfLooks=looks)
    run(path, "-o", tmp_path / "out", "--json", tmp_path / "r.json")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gcov_HHHH.tif", "gcov_HVHV.tif"]
    with rasterio.open(tmp_path / "out" / "gcov_HVHV.tif") as d:
        expected = np.where((mask == 0) | (mask == 255), np.nan, 2 * image)
        np.testing.assert_allclose(d.read(1), expected, rtol=1e-6)
        assert d.crs.to_epsg() == 32610
        assert d.transform == rasterio.transform.from_origin(WEST, NORTH, STEP, STEP)
        assert d.tags()["POLARISATION"] == "HV"
    (first, _) = json.loads((tmp_path / "r.json").read_text())["files"]
    assert (first["domain"]["domain"], first["domain"]["source"]) == ("intensity", "product")
    assert (first["bands"][0]["looks"], first["bands"][0]["looks_source"]) == (7.5, "product")


def test_geocoded_complex_image_by_polarisation_and_frequency(tmp_path):
    path = nisar_grid(tmp_path / "gslc.h5", "GSLC", {"frequencyA/HH": slc(1), "frequencyA/HV": slc(2),
                                                     "frequencyB/VV": slc(3)})
    names = [i.name for i in images_in(path, ProductOptions())]
    assert names == [f"gslc_{n}.tif" for n in ("frequencyA_HH", "frequencyA_HV", "frequencyB_VV")]
    run(path, "-o", tmp_path / "hv.tif", "--polarisation", "hv", "--out-domain", "intensity")
    with rasterio.open(tmp_path / "hv.tif") as d:
        np.testing.assert_allclose(d.read(1), np.abs(slc(2)) ** 2, rtol=1e-5)
        assert d.crs.to_epsg() == 32610
    with pytest.raises(ConfigError, match=r"HX.*must be one of HH, HV, VV"):
        images_in(path, ProductOptions(polarisations=("HX",)))


def test_range_doppler_image_of_half_floats_gets_ground_control_points(tmp_path):
    path, image = tmp_path / "rslc.h5", slc() / 64
    with h5py.File(path, "w") as file:
        swath = file.create_group("science/LSAR/RSLC/swaths")
        swath["zeroDopplerTime"] = 100 + 0.5 * np.arange(SHAPE[0])
        swath["frequencyA/slantRange"] = 8e5 + 10.0 * np.arange(SHAPE[1])
        swath["frequencyA/HH"] = halves(image)
        grid = file.create_group("science/LSAR/RSLC/metadata/geolocationGrid")
        times, ranges = 95 + 5.0 * np.arange(8), 8e5 - 100 + 100.0 * np.arange(10)  # begins before the image, ends behind
        grid["zeroDopplerTime"], grid["slantRange"] = times, ranges
        grid["heightAboveEllipsoid"] = [-500.0, 0.0, 500.0]
        layers = np.array([7, 0, 7])[:, None, None]  # of other heights: other places
        grid["coordinateX"] = layers + 10 + 0 * times[:, None] + ranges / 1e5
        grid["coordinateY"] = layers + 40 + times[:, None] / 100 + 0 * ranges
        grid["epsg"] = 4326
    np.testing.assert_allclose(read_complex(path), image, rtol=1e-3)
    run(path, "-o", tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as d:
        points, crs = d.gcps
        assert crs.to_epsg() == 4326
        for p in points:
            assert p.x == pytest.approx(10 + (8e5 + 10 * (p.col - 0.5)) / 1e5)
            assert p.y == pytest.approx(40 + (100 + 0.5 * (p.row - 0.5)) / 100)
        assert len({p.row for p in points}) == 6  # of 100, 105 ... 125 s, of what lasts until 129.5 s
        np.testing.assert_allclose(d.read(1), np.abs(image), rtol=2e-3)


def test_iceye_s_two_parts_are_one_complex_image(tmp_path):
    path, image = tmp_path / "ICEYE_X7_SLC.h5", slc()
    with h5py.File(path, "w") as file:
        file["s_i"], file["s_q"] = image.real.astype(np.int16), image.imag.astype(np.int16)
        file["polarization"], file["calibration_factor"] = b"VV", 2.5e-6
        for k, corner in enumerate(("first_near", "first_far", "last_near", "last_far")):
            file[f"coord_{corner}"] = [1.0, 1.0, 50.0 + k, 20.0 + k]
    run(path, "-o", tmp_path / "out.tif", "--polarisation", "VV")
    with rasterio.open(tmp_path / "out.tif") as d:
        np.testing.assert_allclose(d.read(1), np.abs(image), rtol=1e-6)
        assert float(d.tags()["ICEYE_CALIBRATION_FACTOR"]) == 2.5e-6
        assert [(p.row, p.col, p.y, p.x) for p in d.gcps[0]] == [
            (0, 0, 50, 20), (0, SHAPE[1], 51, 21), (SHAPE[0], 0, 52, 22), (*SHAPE, 53, 23)]
    with open_scene(path) as scene:
        assert (scene.info.domain, scene.info.looks) == ("complex", 1.0)


def test_any_other_file_by_name_with_scale_and_fill(tmp_path):
    path, image = tmp_path / "other.h5", speckle()
    stored = np.rint(image / 1e-4).astype(np.int32)
    stored[5:9] = -1
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a/b/sigma0", data=stored)
        data.attrs.update({"scale_factor": 1e-4, "_FillValue": np.int32(-1)})
        file["a/b/x"], file["a/b/y"] = np.arange(SHAPE[1]) * 2.0, np.arange(SHAPE[0]) * -3.0
        file["a/table"], file["words"] = np.ones((99, 3)), "text"
        file["amplitude_VV"] = np.sqrt(image)
    with pytest.raises(ConfigError, match=r"a_b_sigma0, amplitude_VV.*--variable"):
        read_array(path)
    values, info = read_array(path, product=ProductOptions(variables=("b/sigma0",)))
    assert (info.domain, info.choice.source) == ("intensity", "product")
    np.testing.assert_allclose(values, np.where(stored < 0, np.nan, stored * 1e-4), rtol=1e-6)
    assert read_array(path, product=ProductOptions(variables=("amplitude_VV",)))[1].domain == "amplitude"
    run(path, "-o", tmp_path / "out.tif", "--variable", "sigma0")
    with rasterio.open(tmp_path / "out.tif") as d:
        assert d.transform == rasterio.Affine(2, 0, -1, 0, -3, 1.5)
    with pytest.raises(ConfigError, match=r"gamma0.*a/b/sigma0"):
        images_in(path, ProductOptions(variables=("gamma0",)))
    # Rows are read as they are asked for
    with open_scene(path, product=ProductOptions(variables=("amplitude_VV",))) as scene:
        np.testing.assert_allclose(scene.read(slice(11, 17)), image[11:17], rtol=1e-5)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    whole = nisar_grid(tmp_path / "a.h5", "GCOV", {"HHHH": speckle()}).read_bytes()
    for name, content in (("short.h5", whole[: len(whole) // 2]), ("text.h5", b"no such thing"), ("short.nc", b"CDF\x01\0")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_array(tmp_path / name)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["table"] = np.ones((40, 3))
    with pytest.raises(DataError, match="must hold an image"):
        images_in(tmp_path / "empty.h5", ProductOptions())
    # Pixels that lie in another file
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 64)
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("image", (32, 32), "u1", external=[(str(secret), 0, 1024)])
    with pytest.raises(DataError, match="stored elsewhere"):
        read_array(tmp_path / "outside.h5", "amplitude")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["image"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "science/LSAR/GCOV/grids/frequencyA/HHHH")
    with pytest.raises(DataError, match=r"must hold an image|stored elsewhere"):
        read_array(tmp_path / "linked.h5", "intensity")
    with pytest.raises(DataError, match="need domain complex"):
        read_array(nisar_grid(tmp_path / "c.h5", "GSLC", {"HH": slc()}), "amplitude")
    assert "short.h5" in run(tmp_path / "short.h5", tmp_path / "a.h5", "-o", tmp_path / "out", code=1)
    assert (tmp_path / "out" / "a_HHHH.tif").exists()


def classic(path: Path, image: np.ndarray) -> Path:
    """A netCDF of the classic format, rows from south to north as many models have them."""
    with netcdf_file(path, "w") as file:
        for name, size, values in (("y", SHAPE[0], np.arange(SHAPE[0]) * STEP), ("x", SHAPE[1], np.arange(SHAPE[1]) * STEP)):
            file.createDimension(name, size)
            axis = file.createVariable(name, "d", (name,))
            axis[:], axis.standard_name, axis.units = values, f"projection_{name}_coordinate", "m"
        crs = file.createVariable("crs", "i", ())
        crs.grid_mapping_name, crs.spatial_ref = "transverse_mercator", rasterio.CRS.from_epsg(32633).to_wkt()
        data = file.createVariable("vv", "f", ("y", "x"))
        data[:], data.long_name, data.grid_mapping, data._FillValue = image, "gamma0 VV", "crs", np.float32(-9)
        angle = file.createVariable("incidence", "f", ("y", "x"))
        angle[:], angle.units = image, "degrees"
    return path


def test_netcdf_by_its_conventions(tmp_path):
    image = speckle()
    image[:7] = -9
    path = classic(tmp_path / "scene.nc", image)
    run(path, "-o", tmp_path / "out.tif", "--json", tmp_path / "r.json")
    with rasterio.open(tmp_path / "out.tif") as d:
        expected = np.where(image == -9, np.nan, image)[::-1]
        np.testing.assert_allclose(d.read(1, masked=True).filled(np.nan), expected, rtol=1e-6)
        assert d.crs.to_epsg() == 32633
        assert d.transform == rasterio.transform.from_origin(-STEP / 2, (SHAPE[0] - 0.5) * STEP, STEP, STEP)
    (file,) = json.loads((tmp_path / "r.json").read_text())["files"]
    assert (file["domain"]["domain"], file["domain"]["source"]) == ("intensity", "product")
    with pytest.raises(ConfigError, match=r"sigma.*vv"):
        images_in(path, ProductOptions(variables=("sigma",)))
