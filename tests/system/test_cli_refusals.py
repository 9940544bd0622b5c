"""What a command refuses, before any work: one plain line on standard error that names option and value, exit code 2."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.resources import Resources

FIT = ("fit", "--model", "rmc1", "--board", "pynq-z2")
REPORT = ("report", "--board", "pynq-z2")
COMPARE = ("sar", "compare", "x.tif")
DESPECKLE = ("despeckle", "x.tif", "-o", "y.tif")


def refused(nearflash, monkeypatch, args, says):
    monkeypatch.chdir(Path(__file__).parents[2])
    r = nearflash(*args)
    assert r.returncode == 2
    assert says in r.stderr
    assert r.stderr.count("\n") == 1
    assert not r.stdout


@pytest.mark.parametrize(("args", "says"), [
    (("run", "--seed", -1), "'-1'"), (("run", "--seed", 2**64), str(2**64)), (("train", "x", "--seed", 2**64), str(2**64)),
    (("run", "--board", "de10"), "board = 'de10'"), (("run", "--clock", "nan"), "clock_mhz = nan"),
    (("run", "--batch", 257), "--batch = 257: must be at most 256"),
    (("train", "x", "--interaction", "sum"), "--interaction = 'sum'"), ((*FIT, "--clock", 0), "clock_mhz = 0"),
    ((*FIT, "--error", "nan"), "--error = nan"), ((*FIT, "--error", 0), "--error = 0"),
    (("timing", "--freq", "inf"), "--freq = inf"), ((*COMPARE, "--looks", "nan"), "looks = 'nan'"),
    ((*COMPARE, "--methods", "lee,best"), "--methods = 'best'"), (("sar", "train", "docs", "--device", "tpu"), "'tpu'"),
    (("run", "--queries", "1_000"), "--queries = '1_000': must be digits"), (("run", "--clock=2_0"), "--clock = '2_0'"),
    (("run", "--seed", "\u0661"), "--seed = "),
    (("run", "--foo"), "--foo"), (("nothing",), "nothing"), (("config", "a\nb"), "config = 'a\\nb'"),
])
def test_values_out_of_range(nearflash, monkeypatch, args, says):
    refused(nearflash, monkeypatch, args, says)


@pytest.mark.parametrize("args", [("run", "--board", "pynq-z2", "--dies", 4, "--model", "rmc1", "--rows", 1000),
                                  (*FIT, "--dies", 4), (*REPORT, "--plan", "PLAN"),
                                  ("timing", "--board", "pynq-z2", "--plan", "PLAN")])
def test_a_device_that_the_boards_memory_cannot_hold(nearflash, monkeypatch, tmp_path, args):
    """Preset paper with four dies a channel: 1 GiB of flash and its map, on a board of 512 MiB."""
    plan = tmp_path / "plan.toml"
    plan.write_text(DeviceConfig.preset("paper", dies=4).to_toml())
    refused(nearflash, monkeypatch, [str(plan) if a == "PLAN" else a for a in args],
            "flash = '4 x 4 dies of 64 x 256 pages of 4096 B': needs 1,041 MiB of DRAM")


@pytest.mark.parametrize(("args", "says"), [
    (("run", "--json", "docs"), "Is a directory: 'docs'"),
    (("run", "--json", "README.md/x"), "Not a directory: 'README.md/x'"),
    (("run", "--json", "new/"), "'new/'"), (("run", "--json", ""), "''"),
    (("run", "--json", "new", "--waves", "./new"), "--waves = 'new': is what --json writes too"),
    (("run", "--waves", "x.txt"), "--waves = 'x.txt': must end in ."), (("train", "x", "-o", "docs"), "Is a directory"),
    (("train", "x", "-o", "mine.pt"), "--out = 'mine.pt': must end in .npz"), ((*FIT, "-o", "docs"), "Is a directory"),
    ((*REPORT, "--plot", "x.xyz"), "--plot = 'x.xyz': must end in .png, .pdf, .svg"),
    ((*REPORT, "--plot", "README.md/x.png"), "Not a directory: 'README.md/x.png'"),
    (("timing", "--json", "docs"), "Is a directory: 'docs'"), ((*COMPARE, "-o", "x.xyz"), "--out = 'x.xyz': must end in"),
    (("sar", "evaluate", "--set", "docs", "--json", "docs"), "Is a directory: 'docs'"),
    (("sar", "train", "docs", "-o", "README.md"), "Not a directory: 'README.md/weights.npz'"),
    ((*DESPECKLE, "--json", "docs"), "Is a directory: 'docs'"), (("config", "tiny", "--json", "docs"), "Is a directory"),
    (("registers", "--json", "docs"), "Is a directory"),
])
def test_outputs_that_cannot_be_written(nearflash, monkeypatch, args, says):
    refused(nearflash, monkeypatch, args, says)


@pytest.mark.parametrize(("args", "says"), [
    (("run", "--rows", "9"), "--rows = 9: has no effect without a --model"),
    (("run", "--checkpoint", "x.pt", "--rows", "2000"), "--rows = 2000: has no effect"),
    (("run", "--checkpoint", "x.pt", "--format", "int8"), "--format = 'int8': has no effect"),
    (("run", "--model", "x.toml", "--format", "fp32"), "--format = 'fp32': has no effect"),
    *((("run", "--plan", "x", option, value), f"{option} = {value!r}: can't be combined with --plan") for option, value in (
        ("--preset", "paper"), ("--config", "x"), ("--channels", 4), ("--dies", 4), ("--clock", 200.0), ("--act-bits", 8),
        ("--weight-bits", 16))),
    (("run", "--config", "x.toml", "--preset", "tiny"), "--preset = 'tiny': can't be combined with --config"),
    (("run", "--dataset", "x", "--trace", "y"), "--trace = 'y': can't be combined with --dataset"),
    (("run", "--dataset", "x", "--locality", "1"), "--locality = 1.0: can't be combined with --dataset"),
    (("run", "--trace", "x", "--histogram", "y"), "--histogram = 'y': can't be combined with --trace"),
    ((*FIT, "--error", "0.1", "--act-bits", "8"), "--act-bits = 8: can't be combined with --error"),
    (("timing", "--plan", "x.toml", "--model", "rmc1"), "--model = 'rmc1': can't be combined with --plan"),
    (("timing", "--net-ns", "1"), "--net-ns = 1.0: needs --tool unplaced"),
    ((*COMPARE, "--seed", "0"), "--seed = 0: has no effect without --simulate"),
    ((*COMPARE, "--db-scale", "1"), "--db-scale = 1.0: has no effect without --domain db"),
    ((*COMPARE, "--methods", "lee", "--checkpoint", "x"), "--checkpoint = 'x': has no effect without a network"),
    ((*DESPECKLE, "--workers", "2"), "--workers = 2: has no effect without --cluster"),
    ((*DESPECKLE, "--cluster", "dask", "--scheduler", "x", "--workers", "2"), "--workers = 2: can't be combined with"),
])
def test_options_are_never_ignored(nearflash, monkeypatch, args, says):
    refused(nearflash, monkeypatch, args, says)


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_queries_for_a_device_without_a_lookup_engine(nearflash, monkeypatch, tmp_path, command):
    config, file = DeviceConfig.preset("tiny"), tmp_path / "alone.toml"
    file.write_text(replace(config, lookup=replace(config.lookup, max_tables=0)).to_toml())
    refused(nearflash, monkeypatch, (command, "--model", "rmc1", "--rows", 100, "--config", file),
            "lookup.max_tables = 0: must be above 0: this device has no lookup engine")


def test_names_are_shown_as_they_are(nearflash, monkeypatch, tmp_path):
    """Square brackets and colons are no markup, in errors and in tables."""
    refused(nearflash, monkeypatch, ("config", "[/x][bold]:smile:"), "config = '[/x][bold]:smile:'")
    good, bad = tmp_path / "[red]a:smile:.npy", tmp_path / "[bold]b:smile:.npy"
    np.save(good, np.ones((40, 50), np.float32))
    bad.write_text("no array")
    r = nearflash("despeckle", good, bad, "-o", tmp_path / "out", "--method", "none", "--domain", "intensity")
    assert r.returncode == 1
    assert "\n[red]a:smile:.npy " in r.stdout
    assert f"failed: {bad}: DataError" in r.stdout


def test_a_block_that_is_not_there(nearflash, monkeypatch, tmp_path):
    class Estimator:
        def __init__(self, family):
            pass

        def device(self, config):
            return {"": Resources(lut=1), "nvme": Resources(lut=2), "mlp": Resources(lut=3), "mlp.core0": Resources(lut=4)}

    monkeypatch.setattr("nearflash.cli.report.load_tool", lambda name: Estimator)
    out = tmp_path / "r.json"
    command = (*REPORT, "--estimate-only", "--json", out, "--block")
    refused(nearflash, monkeypatch, (*command, "nosuch"), "--block = 'nosuch': must be one of nvme, mlp, mlp.core0\n")
    assert not out.exists()
    assert nearflash(*command, "mlp").returncode == 0
    figures = {r["name"]: r["value"] for r in json.loads(out.read_text())["results"]}
    assert figures["total/estimated_lut_count"] == 7
