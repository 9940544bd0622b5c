"""Three releases of pynq and three boards, each as it is used: what runs inside is stock PYNQ."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from environments import run_python

INSIDE = Path(__file__).parent / "inside"


@pytest.mark.parametrize(("version", "board"), [("3.0.1", "kv260"), ("3.1.2", "pynq-z2"), ("4.0.0", "zcu104")])
def test_stack(version, board, worker_id):
    """As the boards' images have it: PYNQ-Z2 3.1.2, ZCU104 4.0.0, KV260 3.0.1."""
    run = run_python(version, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(INSIDE),
                     board=f"{board}/test-{worker_id}", seconds=600)
    print(run.stdout[-8000:], run.stderr[-3000:])
    assert run.returncode == 0
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout.splitlines()[-1]
