"""Three releases of pynq and three boards, each as it is used: what runs inside is stock PYNQ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nearflash.cli.app import app
from nearflash.sar import despeckle
from nearflash.sar.methods import load_method
from small_despeckler import write_despeckler
from typer.testing import CliRunner

from bench.pynq_environments import VERSIONS, run_python

INSIDE = Path(__file__).parent / "inside"


BOARDS = ("pynq-z2", "zcu104", "kv260")
USED = [("3.0.1", "kv260"), ("3.1.2", "pynq-z2"), ("4.0.0", "zcu104")]  # as the boards' images have it


def run_inside(version: str, board: str, *tests: str) -> str:
    """Run ``tests`` of ``inside``; returns what pytest printed."""
    run = run_python(version, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests, board=board,
                     seconds=600)
    print(run.stdout[-8000:], run.stderr[-3000:])
    assert run.returncode == 0
    assert " passed" in run.stdout.splitlines()[-1]
    assert "skipped" not in run.stdout.splitlines()[-1]
    return run.stdout


@pytest.mark.parametrize(("version", "board"), USED)
def test_stack(version, board, worker_id):
    files = [str(INSIDE / f"test_{name}.py") for name in ("faults", "stack", "packaging")]
    run_inside(version, f"{board}/test-{worker_id}", *files)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_one_notebook_everywhere(version, board, worker_id):
    """The same file under each release of pynq on each board: not a byte of it is changed."""
    run_inside(version, f"{board}/test-{worker_id}", f"{INSIDE / 'test_notebooks.py'}::test_notebook[first_query]")


DESPECKLED = """
from pathlib import Path
import numpy as np, pynq
from nearflash.sar.methods import load_method

method = load_method("tiny", device="fabric", checkpoint=Path("small.npz"), overlay=Path("tensors/tensors.bit"))
np.save("board.npy", method(np.load("image.npy"), 4.0))
method.close()
assert not pynq.Device.active_device.board.memory.regions, "the driver left buffers behind"
"""


def test_a_despeckler_in_the_fabric(tmp_path, worker_id):
    """`nearflash build` of a device with a tensor engine, and a network on it: the integer model's bytes, from Python under
    pynq 3 and from the command line under pynq 4."""
    weights, device = write_despeckler(tmp_path)
    image = np.random.default_rng(4).gamma(4, 1 / 4, (32, 32)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "amplitude.npy", np.sqrt(image))
    made = CliRunner().invoke(app, ["build", "--board", "pynq-z2", "--config", str(device), "--no-run", "--out",
                                    str(tmp_path / "tensors")])
    assert made.exit_code == 0, made.output + repr(made.exception)
    board = f"pynq-z2/test-{worker_id}"
    ran = run_python("3.1.2", "-c", DESPECKLED, board=board, cwd=tmp_path, seconds=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    model = load_method("tiny", device="fabric-model", checkpoint=weights, config=device)
    assert np.load(tmp_path / "board.npy").tobytes() == model(image, 4.0).tobytes()
    ran = run_python("4.0.0", "-m", "nearflash", "despeckle", "amplitude.npy", "-o", "clean.npy", "--method", "tiny",
                     "--domain", "amplitude", "--looks", "4", "--device", "fabric", "--overlay", "tensors/tensors.bit",
                     "--checkpoint", "small.npz", "--json", "report.json", board=board, cwd=tmp_path, seconds=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    want = despeckle(np.sqrt(image), domain="amplitude", looks=4, method=model)
    assert np.load(tmp_path / "clean.npy").tobytes() == want.tobytes()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fabric"]["config"] == "tensors"


def test_every_notebook(worker_id):
    run_inside("3.1.2", f"pynq-z2/test-{worker_id}", str(INSIDE / "test_notebooks.py"))
