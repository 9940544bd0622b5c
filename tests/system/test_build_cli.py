"""``nearflash build``: what it writes, and what it refuses, before any work and with nothing written."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from nearflash.board.hwh import read_hwh
from nearflash.compiler import compile_device
from nearflash.contract import DeviceConfig
from nearflash.models import model_spec

Z2 = ("build", "--board", "pynq-z2", "--no-run")
TINY = DeviceConfig.preset("tiny")
MLP = compile_device(model_spec("ncf", 100), TINY)


@pytest.fixture
def refused(nearflash, tmp_path, monkeypatch):
    """Runs a command that must end with code 2, one line that says so, and nothing written; FILE is a file of ``toml``."""
    def call(*args, says, toml=""):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "FILE.toml").write_text(toml)
        r = nearflash(*args, "--out", "out")
        assert r.returncode == 2, r
        assert says in r.stderr
        assert r.stderr.count("\n") == 1
        assert os.listdir(tmp_path) == ["FILE.toml"]
    return call


@pytest.mark.parametrize(("args", "says"), [
    (("build", "--board", "de10", "--preset", "tiny"), "board = 'de10'"),
    (("build", "--board", "xc7a200t", "--preset", "tiny"), "--board = 'xc7a200t': has no processing system"),
    (Z2, "device = 'none': must be one of --model, --plan, --preset, --config and --design"),
    ((*Z2, "--preset", "tiny", "--model", "rmc1"), "device = '--model, --preset'"),
    ((*Z2, "--preset", "huge"), "--preset = 'huge'"), ((*Z2, "--plan", "none.toml"), "--plan = 'none.toml'"),
    ((*Z2, "--preset", "tiny", "--clock", 150), "clock_mhz = 150.0: can't be made from the processing_system7's 1000 MHz: "
     "the nearest are 142.857 and 166.667"),
    ((*Z2, "--preset", "tiny", "--clock", "nan"), "clock_mhz = nan"), ((*Z2, "--preset", "tiny", "--clock", 0), "mhz = 0.0"),
    ((*Z2, "--model", "rmc1", "--clock", 150), "clock_mhz = 150.0"),
    ((*Z2, "--preset", "mqsim"), "flash = "), ((*Z2, "--preset", "tiny", "--tool", "ise"), "--tool = 'ise'"),
    (("build", "--board", "kv260", "--preset", "tiny", "--tool", "open"), "--tool = 'open': knows 7-series parts alone"),
    ((*Z2, "--preset", "tiny", "--seconds", 5), "--seconds = 5: has no effect without a tool that runs"),
    ((*Z2, "--preset", "tiny", "--json", "out/new/"), "'out/new/'"),
])
def test_options(refused, args, says):
    refused(*args, says=says)


def test_a_tool_that_is_asked_for_and_missing(refused, monkeypatch):
    monkeypatch.setenv("PATH", "")
    refused("build", "--board", "kv260", "--preset", "tiny", "--run",
            says="--tool = 'auto': is missing here: vivado needs vivado")


@pytest.mark.parametrize(("config", "says"), [
    (replace(TINY, name="x-zcu104"), "FILE.toml: name = 'x-zcu104': is a plan for XCZU7EV: pynq-z2 has XC7Z020"),
    (replace(MLP, mlp=replace(MLP.mlp, primitive="dsp48e2")), "FILE.toml: mlp.primitive = 'dsp48e2': is of another part"),
    (replace(TINY, clock_mhz=150.0), "clock_mhz = 150.0: can't be made"),
    (replace(DeviceConfig.preset("paper", dies=4), clock_mhz=100.0), "needs 1,041 MiB of DRAM with its map and weights"),
    (replace(TINY, bus=replace(TINY.bus, id_bits=7)), "bus.id_bits = 7: must be at most 6"),
])
def test_plans(refused, config, says):
    refused(*Z2, "--plan", "FILE.toml", toml=config.to_toml(), says=says)


def test_a_folder_that_holds_something_else(nearflash, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    r = nearflash(*Z2, "--preset", "tiny", "--out", "out")
    assert (r.returncode, r.stderr) == (2, "nearflash: ConfigError: --out = 'out': holds thesis.tex, which no earlier build "
                                        "wrote: name another folder\n")
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def runs_in_vivado(folder):
    """The script takes the shell as it is, in a Tcl interpreter with stubs of Vivado's commands."""
    pytest.importorskip("tkinter", reason="no Tcl here: Vivado's script is NOT run (install Python's tkinter)")
    from vivado_stub import Vivado

    v = Vivado()
    v.source(folder / "build_vivado.tcl")
    assert v.wrote == [str(folder / "run" / "vivado" / "tiny.bit")]


def test_a_build_and_the_same_again_elsewhere(nearflash, tmp_path):
    """Another process, other hashes, nothing cached: the same bytes."""
    r = nearflash(*Z2, "--preset", "tiny", "--out", tmp_path / "a", "--json", tmp_path / "a.json")
    assert r.returncode == 0, r.stderr
    assert "Nothing of this has run on a board." in r.stdout
    got = json.loads((tmp_path / "a.json").read_text())
    assert (got["bitstream"], got["filed"], got["clock_mhz"], got["name"]) == (None, None, 100.0, "tiny")
    assert sorted(os.listdir(tmp_path / "a")) == got["files"]
    assert max(got["estimated_share"].values()) < 0.8
    assert "PS7 ps7 (" in (tmp_path / "a" / "tiny.v").read_text()
    env = {**os.environ, "PYTHONHASHSEED": "12345", "NEARFLASH_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-m", "nearflash", *Z2, "--preset", "tiny", "--out", tmp_path / "b"], env=env,
                   check=True, capture_output=True, timeout=600)
    first, again = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
    assert first == again
    runs_in_vivado(tmp_path / "a")


def test_an_ultrascale_build(nearflash, tmp_path):
    r = nearflash("build", "--board", "kv260", "--no-run", "--preset", "tiny", "--clock", 150, "--out", tmp_path / "k")
    assert r.returncode == 0, r.stderr
    assert "module nearflash_shell(" in (tmp_path / "k" / "tiny.v").read_text()
    assert read_hwh(tmp_path / "k" / "tiny.hwh").clocks[0].divisors == (10, 1)
    runs_in_vivado(tmp_path / "k")
