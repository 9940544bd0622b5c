"""No unexplained growth: the synthesised device against the committed baseline (``make util`` shows the same table)."""

import pytest
from nearflash.contract.resources import Resources
from nearflash_hw.synthesis.report import device_units
from nearflash_hw.synthesis.yosys import synthesis_key, synthesise

from bench import util


def test_no_unit_grew(capsys):
    assert util.baseline_file().is_file(), "no baseline for this version of Yosys: python -m bench.util --update"
    before = util.Baseline.read()
    rows = util.compare(util.measured(before).units, before.units)
    if any(r["fails"] for r in rows):
        util.show(rows)
        pytest.fail(f"resources grew over the tolerance:\n{capsys.readouterr().out}")


def test_the_baseline_is_what_synthesis_gives():
    """Some of those that did not change, the smallest: the rest is taken from the file."""
    before = util.Baseline.read()
    same = [u for u in device_units(util.device()) if before.keys.get(u.path) == synthesis_key(u.rtlil, util.FAMILY)]
    for unit in sorted(same, key=lambda u: len(u.rtlil))[:4]:
        assert synthesise(unit.rtlil, util.FAMILY) == before.units[unit.path], unit.path


def test_growth_is_seen():
    before = {"a": Resources(lut=1000, ff=100, bram18=2), "b": Resources(lut=5)}
    assert [r["fails"] for r in util.compare(before, before)] == [""]
    grown = {"a": Resources(lut=1031, ff=110, bram18=3), "b": Resources(lut=15), "c": Resources(dsp=1)}
    rows = {r["unit"]: r for r in util.compare(grown, before)}
    assert rows["a"]["fails"] == "lut, bram18"
    assert rows["b"]["fails"] == ""
    assert rows["c"]["fails"] == "dsp"
    assert rows["total"]["lut_change_count"] == 41
