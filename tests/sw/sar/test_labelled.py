"""Masked arrays, xarray in every order of dimensions, Datasets, lazy arrays, the accessor, and looks by pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
xarray = pytest.importorskip("xarray")
from nearflash.contract import ConfigError, DataError  # noqa: E402
from nearflash.sar import accessor, despeckle  # noqa: E402
from nearflash.sar.methods import load_method  # noqa: E402

LEE = load_method("lee")
OPTIONS = {"looks": 4, "method": LEE, "domain": "intensity"}


def speckle(shape: tuple[int, ...] = (96, 112), seed: int = 0, level: float = 0.05) -> np.ndarray:
    return (level * np.random.default_rng(seed).gamma(4, 1 / 4, shape)).astype(np.float32)


def test_a_masked_array_keeps_its_mask_and_what_lies_under_it():
    data = speckle()
    data[:20] = 9 * speckle((20, 112), seed=2)
    under = data[:20].copy()
    image = np.ma.MaskedArray(data.copy(), mask=False, fill_value=-1)
    image[:20] = np.ma.masked
    got = despeckle(image, **OPTIONS)
    assert isinstance(got, np.ma.MaskedArray)
    np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(image))
    np.testing.assert_array_equal(got.data[:20], under)
    assert got.fill_value == -1
    assert float(got[20:24].mean()) == pytest.approx(0.05, rel=0.06)
    np.testing.assert_array_equal(image.data, data)  # the input is left alone
    plain = despeckle(np.where(np.ma.getmaskarray(image), np.nan, data), **OPTIONS)
    np.testing.assert_array_equal(got.filled(np.nan), plain)
    mask = np.ma.getmaskarray(image)
    pairs = np.ma.MaskedArray(np.stack([data, data], -1), mask=np.stack([mask, np.zeros_like(mask)], -1))
    np.testing.assert_array_equal(np.ma.getmaskarray(despeckle(pairs, looks=4, method=LEE, domain="complex")), mask)


@pytest.mark.parametrize("place", ["attrs", "encoding"])
@pytest.mark.parametrize("key", ["_FillValue", "missing_value", "nodata"])
def test_whole_numbers_keep_what_marks_missing_pixels(place, key):
    numbers = np.rint(np.sqrt(speckle()) * 1000).astype(np.uint16)
    holes = np.zeros(numbers.shape, bool)
    holes[::4, ::3] = True
    numbers[holes] = 0
    image = xarray.DataArray(numbers, dims=("y", "x"))
    getattr(image, place)[key] = 0
    got = despeckle(image, looks=4, method=LEE)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.values == 0, holes)
    assert (got.values[~holes] ** 2).mean() / 1e6 == pytest.approx(0.05, rel=0.06)
    assert got.attrs == image.attrs


def test_two_marks_are_both_missing():
    values = speckle()
    values[0, :30], values[1, :30] = -1, -2
    image = xarray.DataArray(values, dims=("y", "x"), attrs={"_FillValue": -1.0, "missing_value": -2.0})
    got = despeckle(image, **OPTIONS).values
    assert (got[0, :30] == -1).all()
    assert (got[1, :30] == -2).all()
    assert (got[2:] > 0).all()


def test_dimensions_in_any_order_and_by_other_names():
    stack = np.stack([speckle(seed=k) for k in range(3)])
    expected = np.stack([despeckle(plane, **OPTIONS) for plane in stack])
    for rows, columns in (("y", "x"), ("latitude", "longitude"), ("azimuth_time", "slant_range_time"), ("a", "b")):
        image = xarray.DataArray(stack, dims=("time", rows, columns))
        orders = [image.dims] if rows == "a" else [image.dims, (columns, rows, "time"), (rows, "time", columns)]
        for order in orders:
            got = despeckle(image.transpose(*order), **OPTIONS)
            assert got.dims == order
            np.testing.assert_array_equal(got.transpose("time", rows, columns).values, expected)


def test_units_and_names_say_the_domain():
    sigma0 = speckle()
    decibel = 10 * np.log10(sigma0)
    for values, attrs, name in ((decibel, {"units": "dB"}, "VV"), (sigma0, {"long_name": "sigma nought"}, "VV"),
                                (sigma0, {}, "gamma0"), (np.sqrt(sigma0), {"long_name": "amplitude"}, None)):
        image = xarray.DataArray(values, dims=("y", "x"), attrs=attrs, name=name)
        got = despeckle(image, looks=4, method=LEE, out_domain="intensity")
        np.testing.assert_allclose(got.values, despeckle(sigma0, **OPTIONS), rtol=1e-4)
    assert despeckle(xarray.DataArray(decibel, dims=("y", "x"), attrs={"units": "dB"}), looks=4, method=LEE,
                     out_domain="amplitude").attrs == {"domain": "amplitude"}
    turned = despeckle(xarray.DataArray(sigma0, dims=("y", "x"), name="sigma0"), looks=4, method=LEE, out_domain="db")
    assert turned.attrs == {"units": "dB"}


def test_a_dataset_is_done_image_by_image():
    vv, vh = speckle(), speckle(seed=1, level=0.01)
    angle = np.full(vv.shape, 35, np.float32)
    dataset = xarray.Dataset({
        "vv": (("y", "x"), vv, {"long_name": "sigma0"}), "vh": (("x", "y"), vh.T, {"long_name": "sigma0"}),
        "incidence": (("y", "x"), angle, {"units": "degrees"}), "valid": (("y", "x"), vv > 0),
        "orbit": ((), 17), "cover": (("y", "x"), np.ones(vv.shape, np.int16), {"flag_values": [1, 2]})},
        coords={"y": np.arange(96.0)}, attrs={"platform": "S1"})
    got = despeckle(dataset, looks=4, method=LEE)
    np.testing.assert_array_equal(got.vv.values, despeckle(vv, **OPTIONS))
    np.testing.assert_array_equal(got.vh.values.T, despeckle(vh, **OPTIONS))
    for name in ("incidence", "valid", "orbit", "cover"):
        xarray.testing.assert_identical(got[name], dataset[name])
    assert got.attrs == dataset.attrs
    assert list(got.data_vars) == list(dataset.data_vars)
    with pytest.raises(DataError, match="image variables"):
        despeckle(dataset[["incidence", "orbit"]], looks=4, method=LEE)


def test_the_accessor_is_the_function():
    assert accessor.NearflashAccessor
    image = xarray.DataArray(speckle(), dims=("y", "x"), name="sigma0")
    xarray.testing.assert_identical(image.nearflash.despeckle(looks=4, method=LEE), despeckle(image, looks=4, method=LEE))
    dataset = image.to_dataset()
    done = dataset.nearflash.despeckle(looks=4, method=LEE)
    xarray.testing.assert_identical(done, despeckle(dataset, looks=4, method=LEE))


def test_looks_by_pixel():
    values = speckle()
    looks = np.full(values.shape, 4.0)
    np.testing.assert_allclose(despeckle(values, **{**OPTIONS, "looks": looks}), despeckle(values, **OPTIONS), rtol=1e-6)
    looks[:, 50:] = 1.0
    got = despeckle(values, **{**OPTIONS, "looks": looks})
    for part, number in ((np.s_[:, :50], 4), (np.s_[:, 50:], 1)):
        np.testing.assert_allclose(got[part], despeckle(values, **{**OPTIONS, "looks": number})[part], rtol=1e-5)
    # Between levels: near the exact number's image
    slope = np.broadcast_to(np.geomspace(1, 20, values.shape[1]), values.shape)
    got = despeckle(values, **{**OPTIONS, "looks": slope})
    for column in (20, 60, 100):
        exact = despeckle(values, **{**OPTIONS, "looks": float(slope[0, column])})
        np.testing.assert_allclose(got[:, column], exact[:, column], rtol=0.05)
    image = xarray.DataArray(np.stack([values, values]), dims=("time", "y", "x"))
    by_date = despeckle(image, **{**OPTIONS, "looks": np.array([4.0, 1.0])[:, None, None]})
    np.testing.assert_allclose(by_date[1].values, despeckle(values, **{**OPTIONS, "looks": 1}), rtol=1e-6)
    for bad, said in ((np.zeros(values.shape), "above 0"), (np.full(values.shape, np.nan), "finite"), (np.ones(7), "fit")):
        with pytest.raises((ConfigError, DataError), match=said):
            despeckle(values, **{**OPTIONS, "looks": bad})


@pytest.fixture
def lazy():
    """A stack of two dates in small chunks, with a hole, and what it holds."""
    da = pytest.importorskip("dask.array")
    values = np.stack([speckle((300, 260), seed=k) for k in range(2)])
    values[:, 100:140, 50:90] = np.nan
    computed = []

    def load(block, block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return block

    chunks = da.from_array(values, chunks=(1, 120, 100)).map_blocks(load, dtype=np.float32,
                                                                    meta=np.empty((0, 0, 0), np.float32))
    return xarray.DataArray(chunks, dims=("time", "y", "x"), name="sigma0", attrs={"units": "1"}), values, computed


@pytest.mark.parametrize("looks", [4, "auto"])
def test_a_lazy_array_stays_lazy_and_has_no_seams(lazy, looks):
    image, values, computed = lazy
    got = despeckle(image, looks=looks, method=LEE)
    assert computed == []  # nothing before it is asked for
    assert got.chunks is not None
    assert (got.dims, got.name, got.attrs, got.dtype) == (image.dims, "sigma0", image.attrs, np.float32)
    result = got.compute(scheduler="synchronous").values
    assert computed
    np.testing.assert_array_equal(np.isnan(result), np.isnan(values))
    if looks == 4:
        # A filter sees a few pixels, which chunks share: the same as in memory
        np.testing.assert_allclose(result, despeckle(values_of(values), **OPTIONS).values, rtol=1e-4)
    else:
        assert np.nanstd(result) < 0.3 * np.nanstd(values)


def values_of(values: np.ndarray):
    return xarray.DataArray(values, dims=("time", "y", "x"))


def test_a_lazy_array_gets_what_a_sample_tells(lazy):
    image, values, _ = lazy
    decibel = 10 * np.log10(image)
    decibel.attrs = {}
    decibel.name = "VV"
    got = despeckle(decibel, looks=4, method=LEE).compute(scheduler="synchronous")
    np.testing.assert_allclose(10 ** (got.values / 10), despeckle(values_of(values), **OPTIONS).values, rtol=1e-3)
    network = despeckle(image, looks=4, method="tiny").compute(scheduler="synchronous")
    whole = despeckle(values_of(values), looks=4, method="tiny", domain="intensity")
    difference = (network - whole) / whole
    assert float(np.sqrt((difference**2).mean())) < 0.03
    with pytest.raises(DataError, match="lazy"):
        despeckle(image, looks=np.full((300, 260), 4.0), method=LEE)
