"""``nearflash timing``: what it passes on, prints and writes. The tool is a stand-in."""

import importlib
import json
from dataclasses import replace

import pytest
import typer
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash_hw.synthesis.place.result import Register, Step, Timing
from typer.testing import CliRunner

cli = importlib.import_module("nearflash.cli.timing")

RESULT = Timing("nextpnr-ecp5", "0.11", "LFE5U-85F-8", True, 100.0, (
    Step("clk-to-q", 0.4, "core0.x"), Step("routing", 5.6, "core0.x[3]"), Step("logic", 4.0, "core0.sum LUT4.F")), 1,
    {"ff": 700}, {"ff": 83_640}, 150.0, (Register("core0.y", 6.5),), 61)


@pytest.fixture
def run(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "load_tool", lambda name: lambda *args: calls.append((name, *args)) or RESULT)
    app = typer.Typer()
    app.command()(cli.timing)
    return lambda *args: (CliRunner().invoke(app, args, catch_exceptions=False), calls)


def test_a_block_of_a_model(run, tmp_path):
    out, calls = run("--block", "mlp.core0", "--model", "ncf", "--preset", "tiny", "--board", "pynq-z2", "--freq", "125",
                     "--json", str(tmp_path / "t.json"))
    assert out.exit_code == 0
    ((name, config, block, board, tool, mhz, seconds, _),) = calls
    assert (name, block, board, tool, mhz, seconds) == ("timing", "mlp.core0", find_board("pynq-z2"), "auto", 125, 3600)
    assert "placed and routed by" in out.stdout
    assert config.mlp.graph
    for text in ("100.0 MHz", "-2.00 ns", "150.0 MHz", "stand-in", "core0.sum LUT4.F", "core0.y", "nextpnr-ecp5 0.11"):
        assert text in out.stdout
    got = json.loads((tmp_path / "t.json").read_text())
    assert (got["fmax_mhz"], got["slack_ns"], got["block"], got["target_part"]) == (100, -2, "mlp.core0", "XC7Z020")
    assert got["design_id"] == f"{config.design_id:#010x}"
    assert got["used"] == {"ff_count": 700}


def test_a_plan_and_the_boards_clock(run, tmp_path):
    config = DeviceConfig.preset("tiny")
    (tmp_path / "plan.toml").write_text(config.to_toml())
    _, calls = run("--plan", str(tmp_path / "plan.toml"), "--board", "zcu104", "--tool", "ecp5")
    assert calls[0][1:] == (config, "", find_board("zcu104"), "ecp5", 200.0, 3600, None)


def test_before_placement(run, monkeypatch):
    monkeypatch.setattr(f"{__name__}.RESULT", replace(RESULT, placed=False, stand_in=False))
    out, calls = run("--block", "mlp.core0", "--preset", "tiny", "--tool", "unplaced", "--net-ns", "0.5")
    assert (calls[0][4], calls[0][-1]) == ("unplaced", 0.5)
    assert "timed before placement by" in out.stdout
    assert "stand-in" not in out.stdout


def test_help_has_an_example(run):
    assert "Example: nearflash timing" in run("--help")[0].stdout


def test_what_a_tool_leaves_out_stands_beside_its_figures(run, monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.RESULT", replace(RESULT, caveat="block RAM is not timed"))
    out, _ = run("--block", "mlp.core0", "--preset", "tiny", "--json", str(tmp_path / "t.json"))
    assert "block RAM is not timed" in out.stdout
    assert json.loads((tmp_path / "t.json").read_text())["caveat"] == "block RAM is not timed"
