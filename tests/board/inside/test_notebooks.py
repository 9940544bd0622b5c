"""The notebooks run as they are, to their end."""

import hashlib
import os
from pathlib import Path

import nbformat
import nearflash.notebooks
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(nearflash.notebooks.__file__).parent.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path, monkeypatch):
    """In a kernel of its own, which has a board of its own; stored with what it shows; not a byte of it changes."""
    monkeypatch.setenv("NEARFLASH_BOARD", os.environ["NEARFLASH_BOARD"] + "-notebook")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    notebook = nbformat.read(path, as_version=4)
    stored = [c for c in notebook.cells if c.cell_type == "code" and c.get("outputs")]
    assert stored, "notebooks are stored with what they show"
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert "Warning" not in output.get("text", "")
    assert any("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_there_are_five():
    assert [p.stem for p in NOTEBOOKS] == ["benchmark", "block_io", "despeckle", "first_query", "your_checkpoint"]
