"""Levels that int8 has no codes for: what is divided out of a network's input, and that a field's mean is kept."""

import numpy as np
import pytest
from nearflash.sar import despeckle
from nearflash.sar.level import MOST, REACH, level
from nearflash.sar.methods import load_method
from nearflash.sar.speckle import speckled


def test_nothing_is_divided_out_of_what_the_codes_hold():
    rng = np.random.default_rng(0)
    assert (level(rng.uniform(0, MOST, (2, 70, 50)).astype(np.float32)) == 1).all()


def test_an_even_area_is_brought_down_to_what_the_codes_hold():
    for bright in (1.5, 20.0):
        above = level(np.full((40, 64), bright * MOST, np.float32))
        assert above.dtype == np.float32
        np.testing.assert_allclose(above, bright, rtol=1e-6)


def test_nothing_counts_beyond_the_reach():
    image = np.full((120, 120), MOST, np.float32)
    image[60, 60] = 1e6
    rows, columns = np.nonzero(level(image) > 1 + 1e-3)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (60 - REACH, 60 + REACH)


@pytest.mark.parametrize("looks", [1, 4])
def test_bright_fields_keep_their_mean_in_int8(looks):
    """10 and 20 dB above the land between them."""
    clean = np.ones((192, 192), np.float32)
    clean[:, :64], clean[:, 128:] = 10, 100
    noisy = speckled(clean, looks, np.random.default_rng(looks)).astype(np.float32)
    out = despeckle(noisy, domain="intensity", looks=looks, method=load_method("tiny", device="fabric-model"))
    for columns in (slice(16, 48), slice(80, 112), slice(144, 176)):
        assert out[16:-16, columns].mean() == pytest.approx(noisy[16:-16, columns].mean(), rel=0.06)
