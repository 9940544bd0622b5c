"""pyright finds nothing: a test, so that it runs beside the others."""

import subprocess
import sys
from pathlib import Path


def test_types():
    done = subprocess.run([sys.executable, "-m", "pyright"], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
