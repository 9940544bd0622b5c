"""Amplitude, intensity, decibel and complex values to and from intensity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nearflash.contract import ConfigError, DataError
from nearflash.sar.domain import from_intensity, marked, to_intensity


def test_each_domain_means_the_same_intensity():
    # By hand: amplitude 3 is intensity 9, 10 log10(9) = 9.542425 dB, |3| = |0 + 3i| = |1.8 + 2.4i|
    for domain, value, scale in (("amplitude", 3.0, 1), ("intensity", 9.0, 1), ("db", 9.542425094393248, 1),
                                 ("db", 95.42425094393248, 10), ("complex", 1.8 + 2.4j, 1)):
        got = to_intensity(np.array([[value]]), domain, db_scale=scale)
        assert got.dtype == np.float32
        assert got.shape == (1, 1)
        assert got[0, 0] == pytest.approx(9, rel=1e-6)
    pairs = to_intensity(np.array([[[1.8, 2.4]]]), "complex")
    assert pairs[0, 0] == pytest.approx(9, rel=1e-6)


@pytest.mark.parametrize(("domain", "scale"), [("amplitude", 1), ("intensity", 1), ("db", 1), ("db", 10)])
def test_there_and_back(domain, scale):
    values = np.linspace(0.001, 60, 500, dtype=np.float32).reshape(20, 25)
    back = from_intensity(to_intensity(values, domain, db_scale=scale), domain, db_scale=scale)
    np.testing.assert_allclose(back, values, rtol=2e-6, atol=1e-5 * scale)


def test_every_16_bit_amplitude_returns_exactly():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(from_intensity(to_intensity(values, "amplitude"), "amplitude"), values)


def test_minus_infinite_decibel_is_zero_and_returns():
    got = to_intensity(np.array([[-np.inf, 0.0]]), "db")
    np.testing.assert_array_equal(got, [[0, 1]])
    np.testing.assert_array_equal(from_intensity(got, "db"), [[-np.inf, 0]])


def test_missing_pixels_are_nan():
    values = np.array([[1, -99, np.nan, 2]], np.float32)
    got = to_intensity(values, "amplitude", missing=marked(values, -99))
    np.testing.assert_array_equal(np.isnan(got), [[False, True, True, False]])
    whole = np.array([[0, 5, 7]], np.uint8)
    np.testing.assert_array_equal(marked(whole, 0, None, 7), [[True, False, True]])
    # A tag of -3.4028234663852886e38 rounds to the float32 in the pixels
    lowest = np.finfo(np.float32).min
    assert marked(np.array([[lowest, 1]], np.float32), float("-3.4028234663852886e+38")).tolist() == [[True, False]]
    assert marked(np.array([[0j, 1j, -1 - 1j, -1 + 0j]]), 0, -1).tolist() == [[True, False, True, True]]
    assert marked(np.array([[[0.0, 0.0], [0.0, 1.0]]]), 0).tolist() == [[True, False]]
    assert np.isnan(to_intensity(np.array([[complex(1, math.nan)]]), "complex")[0, 0])


@pytest.mark.parametrize(("values", "domain", "field", "value"), [
    (np.array([[1.0, -0.5]]), "amplitude", "row 0 column 1", "-0.5"),
    (np.array([[1.0], [-2.0]]), "intensity", "row 1 column 0", "-2.0"),
    (np.array([[1.0, np.inf]]), "intensity", "row 0 column 1", "inf"),
    (np.array([[np.inf]]), "db", "row 0 column 0", "inf"),
    (np.array([[400.0]]), "db", "row 0 column 0", "400.0"),  # 10^40: no float32
    (np.array([[1e20]]), "amplitude", "row 0 column 0", "1e+20"),
    (np.array([[complex(1, np.inf)]]), "complex", "row 0 column 0", "inf"),
    (np.zeros((2, 3, 4)), "amplitude", "shape", "(2, 3, 4)"),
    (np.zeros(5), "intensity", "shape", "(5,)"),
    (np.zeros((2, 3, 3)), "complex", "shape", "(2, 3, 3)"),
    (np.zeros((2, 3)), "complex", "shape", "(2, 3)"),
    (np.zeros((2, 3), complex), "amplitude", "type", "complex128"),
    (np.array([["a"]]), "amplitude", "type", "<U1"),
])
def test_bad_values_are_named(values, domain, field, value):
    with pytest.raises(DataError) as e:
        to_intensity(values, domain, field="scene.tif")
    assert "scene.tif" in str(e.value)
    assert field in str(e.value)
    assert value in str(e.value)


def test_negative_intensity_is_lifted_or_treated_as_told():
    values = np.array([[-0.5, -0.1, 0.3, np.nan, -np.inf]])
    lifted = to_intensity(values[:, :4], "intensity", offset=0.25, negatives="keep")
    np.testing.assert_allclose(lifted, [[0, 0.15, 0.55, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(to_intensity(values[:, :4], "intensity", negatives="clip"), [[0, 0, 0.3, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(to_intensity(values[:, :4], "intensity", negatives="mask"), [[np.nan, np.nan, 0.3, np.nan]],
                               rtol=1e-6)
    with pytest.raises(DataError, match="negatives keep"):
        to_intensity(values[:, :4], "intensity", negatives="error")
    for negatives in ("keep", "clip", "mask"):  # no noise is infinite
        with pytest.raises(DataError, match="finite"):
            to_intensity(values, "intensity", negatives=negatives)
    back = from_intensity(np.array([[-0.5, 0.25]], np.float32), "intensity")
    np.testing.assert_array_equal(back, np.array([[-0.5, 0.25]], np.float32))
    np.testing.assert_array_equal(from_intensity(back, "amplitude"), [[0, 0.5]])
    assert from_intensity(back, "db")[0, 0] == -np.inf


def test_unknown_domains_list_the_known():
    with pytest.raises(ConfigError, match="amplitude, intensity, db, complex"):
        to_intensity(np.zeros((1, 1)), "power")
    with pytest.raises(ConfigError, match="amplitude, intensity, db"):
        from_intensity(np.zeros((1, 1)), "complex")
