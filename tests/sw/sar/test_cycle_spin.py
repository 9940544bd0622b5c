"""Cycle spinning: a network's result no longer depends on where its grids of lower resolution begin."""

from __future__ import annotations

import numpy as np
import pytest
from nearflash.contract import ConfigError
from nearflash.sar import despeckle
from nearflash.sar.methods import Method, apply_method, cycle_spin, load_method

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_phase_of_a_grid_comes_equally_often(period, axis):
    def phased(intensity: np.ndarray, looks: float) -> np.ndarray:
        assert intensity.shape[0] % 32 == intensity.shape[1] % 32 == 0
        place = np.indices(intensity.shape)[axis]
        return (intensity * (1 + (place % period)) ** 2).astype(np.float32)

    spun = cycle_spin(Method("tiny", 8, 32, True, phased))
    values = RNG.gamma(4, 1 / 4, (50, 70)).astype(np.float32)
    mean = np.mean(1 + np.arange(period))  # of amplitudes
    np.testing.assert_allclose(apply_method(spun, values, 4), values * mean**2, rtol=1e-4)
    assert spun.details["cycle_spin"] == 8


def test_a_moved_crop_gets_the_same_pixels():
    noisy = RNG.gamma(1, 1, (65, 65)).astype(np.float32)
    plain = load_method("tiny")
    changes = []
    for method in (plain, cycle_spin(plain)):
        before, after = (despeckle(noisy[part], domain="intensity", looks=1, method=method)
                         for part in (np.s_[:64, :64], np.s_[1:, 1:]))
        changes.append(float(np.sqrt(np.mean((before[1:, 1:] / after[:-1, :-1] - 1)[16:-16, 16:-16] ** 2))))
    assert changes[1] < 0.01
    assert changes[0] > 2 * changes[1]


def test_filters_have_no_grid():
    with pytest.raises(ConfigError, match="must be a network"):
        cycle_spin(load_method("lee"))
