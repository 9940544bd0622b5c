"""nearflash.sar.despeckle on arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")
import nearflash.sar
from nearflash.contract import ConfigError, DataError
from nearflash.sar import despeckle
from nearflash.sar.methods import load_method

RNG = np.random.default_rng(7)
SPECKLE = RNG.gamma(4, 1 / 4, (60, 80)).astype(np.float32)


def lee(intensity: np.ndarray) -> np.ndarray:
    return load_method("lee")(intensity.astype(np.float32), 4.0)


def test_each_domain_despeckles_the_same_intensity():
    expected = lee(SPECKLE)
    phase = np.exp(1j * RNG.uniform(0, 6, SPECKLE.shape))
    slc = (np.sqrt(SPECKLE) * phase).astype(np.complex64)
    cases = {"intensity": (SPECKLE, expected), "amplitude": (np.sqrt(SPECKLE), np.sqrt(expected)),
             "db": (10 * np.log10(SPECKLE), 10 * np.log10(expected)), "complex": (slc, np.sqrt(expected))}
    for domain, (values, clean) in cases.items():
        got = despeckle(values, looks=4, domain=domain, method="lee")
        assert type(got) is np.ndarray
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, clean, rtol=1e-4, atol=1e-4)
    pairs = np.stack([slc.real, slc.imag], axis=-1)
    np.testing.assert_allclose(despeckle(pairs, looks=4, domain="complex", method="lee", out_domain="intensity"), expected,
                               rtol=1e-4)


def test_types_and_missing_values():
    values = SPECKLE.astype(np.float64)
    values[3, 4], values[5, 6] = np.nan, -9999
    before = values.copy()
    got = despeckle(values, looks=4, method="lee", nodata=-9999)
    assert got.dtype == np.float64
    assert np.isnan(got[3, 4])
    assert got[5, 6] == -9999
    assert np.isfinite(got).sum() == got.size - 1
    np.testing.assert_array_equal(values, before)  # the input is left alone
    whole = despeckle((SPECKLE * 100).astype(np.uint16), looks=4, domain="amplitude", method="none", nodata=0)
    assert whole.dtype == np.float32


def test_xarray_keeps_everything_but_the_speckle():
    xarray = pytest.importorskip("xarray")
    stack = np.stack([SPECKLE, SPECKLE[::-1], SPECKLE * 3])
    image = xarray.DataArray(stack, dims=("time", "y", "x"), name="gamma0", attrs={"units": "1", "_FillValue": -1.0},
                             coords={"time": [10, 20, 30], "y": np.arange(60) * -10.0, "x": np.arange(80) * 10.0,
                                     "orbit": ("time", ["a", "b", "c"])})
    image[0, 2, 2] = -1
    got = despeckle(image, looks=4, method="lee")
    assert isinstance(got, xarray.DataArray)
    assert (got.dims, got.name, got.attrs) == (image.dims, "gamma0", image.attrs)
    assert set(got.coords) == set(image.coords)
    for name in image.coords:
        np.testing.assert_array_equal(got[name], image[name])
    assert got[0, 2, 2] == -1
    for k in (1, 2):
        np.testing.assert_allclose(got[k], lee(stack[k]), rtol=1e-5)
    turned = despeckle(image.transpose("x", "time", "y"), looks=4, method="lee")
    assert turned.dims == ("x", "time", "y")
    np.testing.assert_array_equal(turned.transpose("time", "y", "x"), got)
    plane = despeckle(xarray.DataArray(SPECKLE, dims=("rows", "columns")), looks=4, method="lee")
    np.testing.assert_allclose(plane, lee(SPECKLE), rtol=1e-5)


@pytest.mark.parametrize(("image", "options", "error", "said"), [
    (SPECKLE, {"domain": "power"}, ConfigError, "amplitude, intensity, db, complex"),
    (SPECKLE, {"out_domain": "complex"}, ConfigError, "out_domain"),
    (SPECKLE, {"method": "leet"}, ConfigError, "refined-lee"),
    (SPECKLE, {"looks": 0}, ConfigError, "looks"),
    (SPECKLE, {"db_scale": 0.0}, ConfigError, "db_scale"),
    (-SPECKLE, {"domain": "intensity"}, DataError, "at least 0"),
    (-SPECKLE, {"domain": "amplitude"}, DataError, "at least 0"),
    (SPECKLE * np.nan, {}, DataError, "valid pixel"),
    (SPECKLE[0], {}, DataError, r"\(80,\)"),
    (SPECKLE[:0], {}, DataError, "at least one row"),
    (np.zeros((3, 4, 5), np.float32), {}, DataError, r"\(3, 4, 5\)"),
    (np.where(SPECKLE > 2, np.inf, SPECKLE), {}, DataError, "finite"),
    (SPECKLE * 1j, {"domain": "intensity"}, DataError, "domain complex"),
    ([[1.0]], {}, DataError, "list"),
])
def test_bad_input_is_named(image, options, error, said):
    with pytest.raises(error, match=said):
        despeckle(image, **{"looks": 4, "method": "lee", **options})


def test_a_loaded_method_is_as_good_as_its_name():
    intensity = np.random.default_rng(2).gamma(4, 1 / 4, (70, 90)).astype(np.float32)
    lee = load_method("lee")
    np.testing.assert_array_equal(despeckle(intensity, looks=4, method=lee), despeckle(intensity, looks=4, method="lee"))
    for option in ({"device": "cuda"}, {"checkpoint": "weights.npz"}):
        with pytest.raises(ConfigError, match="method = 'lee'"):
            despeckle(intensity, looks=4, method=lee, **option)


def test_constant_and_smallest_images():
    np.testing.assert_allclose(despeckle(np.full((50, 50), 3.0, np.float32), domain="intensity", method="lee"), 3, rtol=1e-6)
    np.testing.assert_array_equal(despeckle(np.array([[2.0]], np.float32), domain="intensity", method="none"), [[2]])
    np.testing.assert_array_equal(despeckle(np.zeros((4, 4), np.float32), domain="intensity", method="lee"), 0)


def test_importing_the_package_loads_nothing_heavy():
    program = ("import sys, nearflash.sar; "
               "print([m for m in ('torch', 'scipy', 'rasterio', 'PIL', 'xarray', 'dask') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = nearflash.sar.absent
