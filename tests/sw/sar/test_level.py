"""Levels that int8 has no codes for: what is divided out of a network's input, and that a field's and a town's mean is
kept."""

import numpy as np
import pytest
from nearflash.sar import despeckle
from nearflash.sar.level import MOST, MOST_OF_TARGETS, NEAR, REACH, TARGET_BOX, level
from nearflash.sar.methods import load_method
from nearflash.sar.simulated import around_targets, observed, point_targets
from nearflash.sar.speckle import speckled
from nearflash.sar.training.cities import simulated_town
from nearflash.sar.training.goals import RESPONSES


def test_nothing_is_divided_out_of_what_the_codes_hold():
    rng = np.random.default_rng(0)
    assert (level(rng.uniform(0, MOST, (2, 70, 50)).astype(np.float32), 1) == 1).all()


def test_an_even_area_is_brought_down_to_what_the_codes_hold():
    for bright in (1.5, 20.0):
        above = level(np.full((40, 64), bright * MOST, np.float32), 1)
        assert above.dtype == np.float32
        np.testing.assert_allclose(above, bright, rtol=1e-6)


def test_nothing_counts_beyond_the_reach():
    image = np.full((120, 120), MOST, np.float32)
    image[60, 60] = 1e6
    other = image.copy()
    other[60, 60] = MOST
    rows, columns = np.nonzero(level(image, 1) != level(other, 1))
    assert 60 - REACH <= rows.min() == columns.min() < 60 - NEAR < 60 + NEAR < rows.max() == columns.max() <= 60 + REACH


def test_speckle_alone_has_no_targets_and_a_town_of_them_is_brought_down():
    """On ground that is as bright as a scene's median; one target among all that ground hardly counts."""
    noisy = np.sqrt(speckled(np.full((160, 160), 0.2), 1, np.random.default_rng(0))).astype(np.float32)
    assert (level(noisy, 1) == 1).mean() > 0.99
    noisy[80, 80] = 6.0
    assert 1 < level(noisy, 1).max() < 1.1
    noisy[60:101:8, 60:101:8] = 6.0  # the square about one meets that about the next
    above = level(noisy, 1)
    assert above[80, 80] == pytest.approx(6 / MOST_OF_TARGETS)
    side = NEAR // 2 + TARGET_BOX - 1
    around = slice(60 - side, 101 + side)
    assert (above > 1)[around, around].sum() == (above > 1).sum()


@pytest.mark.parametrize("looks", [1, 4])
def test_bright_fields_keep_their_mean_in_int8(looks):
    """10 and 20 dB above the land between them."""
    clean = np.ones((192, 192), np.float32)
    clean[:, :64], clean[:, 128:] = 10, 100
    noisy = speckled(clean, looks, np.random.default_rng(looks)).astype(np.float32)
    out = despeckle(noisy, domain="intensity", looks=looks, method=load_method("tiny", device="fabric-model"))
    for columns in (slice(16, 48), slice(80, 112), slice(144, 176)):
        assert out[16:-16, columns].mean() == pytest.approx(noisy[16:-16, columns].mean(), rel=0.06)


def test_a_target_does_not_light_up_the_ground_beside_it_in_int8():
    """40 dB above clutter: what of it left the codes inside the network did, by up to 1.8 times in a mean over targets."""
    clutter, echo = point_targets(100.0, np.random.default_rng([0, 1]))
    out = despeckle(observed(clutter, 1, 0, targets=echo), domain="intensity", looks=1,
                    method=load_method("base", device="fabric-model"))
    rings = [out[ring] for _, ring in around_targets()]
    assert np.mean([r.mean() for r in rings]) == pytest.approx(1, abs=0.05)
    assert np.mean([r.max() for r in rings]) < 1.5


def test_a_town_keeps_its_mean_in_int8():
    """Clusters of targets, some 3 % of which got lost where the codes ended."""
    noisy = simulated_town(np.random.default_rng([0, 2, 5]), 256, 1, RESPONSES[2])
    out = despeckle(noisy, domain="intensity", looks=1, method=load_method("base", device="fabric-model"))
    assert out.mean() == pytest.approx(noisy.mean(), rel=0.015)
