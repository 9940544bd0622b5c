"""No unexplained growth: the synthesised device against the committed baseline (``make util`` shows the same table)."""

import json

import pytest
from nearflash.contract.resources import Resources

from bench import util


def test_no_unit_grew(capsys):
    assert util.baseline_file().is_file(), "no baseline for this version of Yosys: python -m bench.util --update"
    before = {k: Resources(**r) for k, r in json.loads(util.baseline_file().read_text())["units"].items()}
    rows = util.compare(util.measured(), before)
    if any(r["fails"] for r in rows):
        util.show(rows)
        pytest.fail(f"resources grew over the tolerance:\n{capsys.readouterr().out}")


def test_growth_is_seen():
    before = {"a": Resources(lut=1000, ff=100, bram18=2), "b": Resources(lut=5)}
    assert [r["fails"] for r in util.compare(before, before)] == [""]
    grown = {"a": Resources(lut=1031, ff=110, bram18=3), "b": Resources(lut=15), "c": Resources(dsp=1)}
    rows = {r["unit"]: r for r in util.compare(grown, before)}
    assert rows["a"]["fails"] == "lut, bram18"
    assert rows["b"]["fails"] == ""
    assert rows["c"]["fails"] == "dsp"
    assert rows["total"]["lut_change_count"] == 41
