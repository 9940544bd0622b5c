"""The workflows under ``examples/ci`` name options that the commands have."""

import re
from pathlib import Path

import pytest
import typer
from nearflash.cli.app import app

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "ci").glob("*.yml"))


def options(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {o for p in group.commands[command].params for o in p.opts}


def test_there_are_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_options_exist(path):
    """Of `nearflash` commands in run steps, and of WORKLOAD, which goes to `evaluate`."""
    text = path.read_text()
    used = {("evaluate", o) for line in re.findall(r"WORKLOAD: (.*)", text) for o in re.findall(r"--[a-z-]+", line)}
    used |= {(m[1], o) for m in re.finditer(r"^\s+nearflash (\w+) (.*)$", text, re.MULTILINE)
             for o in re.findall(r"--[a-z-]+", m[2])}
    for command, option in used:
        assert option in options(command), f"nearflash {command} has no {option}"
    if path.stem == "nearflash-evaluate":
        assert ("evaluate", "--compare") in used
        assert ("evaluate", "--table-gb") in used
