"""The timing grid's results of the RTL: measured once, found again, published, and asked for anew of another Verilog."""

from __future__ import annotations

import json

import pytest
from nearflash_sim.small.device import SMALL, small_config

from bench import timing_grid_rtl as grid


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Each configuration's Verilog is its repr, or what is put here; the sources' digest too."""
    texts: dict[str, str] = {}
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(grid, "PUBLISHED", tmp_path / "published.json")
    monkeypatch.setattr(grid, "verilog", lambda config: texts.get("verilog", repr(config)))
    monkeypatch.setattr(grid, "gateware_digest", lambda *_: texts.get("sources", "first"))
    return texts


def refuse():
    raise AssertionError("it was measured before")


def result(name, config, measure=refuse):
    device = grid.Results(name, config)
    return device.of(device.key("case", "0"), measure)


def test_a_case_is_measured_once_and_published(made):
    assert result("small", SMALL, lambda: {"completed": [5]}) == {"completed": [5]}
    assert result("small", SMALL) == {"completed": [5]}
    grid.publish()
    for kept in grid.cache_dir().rglob("*.json"):
        kept.unlink()
    assert result("small", SMALL) == {"completed": [5]}
    held = json.loads(grid.PUBLISHED.read_text())
    assert list(held["designs"]) == ["small"]
    assert list(held["cases"].values()) == [{"completed": [5]}]
    # Published results are kept when others are added.
    assert result("large", small_config(dies=4), lambda: {"completed": [7]}) == {"completed": [7]}
    grid.publish()
    assert sorted(json.loads(grid.PUBLISHED.read_text())["designs"]) == ["large", "small"]


def test_another_verilog_is_measured_again_and_other_sources_alone_are_not(made):
    made["verilog"] = "module a"
    result("small", SMALL, lambda: {"completed": [5]})
    grid.publish()
    made["sources"] = "second"
    assert result("small", SMALL) == {"completed": [5]}
    made |= {"sources": "third", "verilog": "module b"}
    assert result("small", SMALL, lambda: {"completed": [6]}) == {"completed": [6]}
