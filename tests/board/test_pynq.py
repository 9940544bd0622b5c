"""Three releases of pynq and three boards, each as it is used: what runs inside is stock PYNQ."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_every_notebook(worker_id):
    run_inside("3.1.2", f"pynq-z2/test-{worker_id}", str(INSIDE / "test_notebooks.py"))
