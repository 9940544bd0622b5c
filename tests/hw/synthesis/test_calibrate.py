"""Fitting some kinds' factors alone: what is measured replaces the package's factor, everything else stays."""

import pytest
from nearflash.contract.resources import Resources

from bench.calibrate import _fit, _Sample

KEPT = {"lut": [2.0, 0.5], "ff": [1.0], "factors": {"ftl": {"lut": 3.0, "ff": 1.0}, "mlp.core": {"lut": 1.2, "ff": 0.9}}}


def ftl(config: int, terms: list[float], lut: int, ff: int) -> _Sample:
    """A unit that holds ``terms``, 10 flip-flops and a memory of 8 LUTs, and takes ``lut`` and ``ff``."""
    return _Sample(config, "ftl", "ftl", terms, [10.0], Resources(lut=8, lutram=8), Resources(lut=lut, lutram=8, ff=ff))


def test_factors_alone():
    # By the coefficients 2 x 10 + 0.5 x 20 = 30 LUTs and 2 x 20 + 0.5 x 20 = 50 beside the memories' 8 each.
    fitted = _fit([ftl(0, [10.0, 20.0], 28, 12), ftl(1, [20.0, 20.0], 58, 18)], KEPT)
    assert (fitted["lut"], fitted["ff"]) == (KEPT["lut"], KEPT["ff"])
    assert fitted["factors"]["ftl"] == {"lut": pytest.approx((20 + 50) / (30 + 50)), "ff": pytest.approx(30 / 20)}
    assert fitted["factors"]["mlp.core"] == KEPT["factors"]["mlp.core"]
