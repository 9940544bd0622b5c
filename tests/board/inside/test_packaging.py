"""PYNQ's conventions: notebooks are delivered, drivers and overlays found, kernels installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pynq
from nearflash.contract.boards import PYNQ_BOARDS
from nearflash_sim.board import kernel


def test_get_notebooks_delivers_them_with_the_boards_overlay(tmp_path):
    env = {**os.environ, "NEARFLASH_BOARD": os.environ["NEARFLASH_BOARD"] + "-get"}
    out = subprocess.run([sys.executable, "-c", "from pynq._cli.get_notebooks import main; main()", "-p", str(tmp_path),
                          "nearflash"], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert out.returncode == 0, out.stderr
    found = {p.name for p in Path(tmp_path).rglob("*.ipynb")}
    assert found == {"benchmark.ipynb", "block_io.ipynb", "despeckle.ipynb", "first_query.ipynb", "your_checkpoint.ipynb"}


def test_overlay_is_found_by_board(monkeypatch):
    overlay = pynq.Overlay("movietweetings.bit", download=False)
    assert overlay.bitfile_name.endswith(f"movietweetings.{pynq.Device.active_device.name}.bit")


def test_every_board_has_its_overlay():
    folder = Path(pynq.Overlay("movietweetings.bit", download=False).bitfile_name).parent
    assert {p.name for p in folder.glob("*.hwh")} == {f"movietweetings.{b.pynq_name}.hwh" for b in PYNQ_BOARDS}
    assert not list(folder.glob("*.bit")), "nothing is called .bit unless a tool made it"


def test_kernels(tmp_path):
    folders = kernel.install(["pynq-z2", "kv260"], str(tmp_path))
    said = [json.loads((Path(f) / "kernel.json").read_text()) for f in folders]
    assert [s["env"]["NEARFLASH_BOARD"] for s in said] == ["sim:pynq-z2", "sim:kv260"]
    assert Path(said[0]["argv"][0]).samefile(sys.executable)
