"""What the system tests share: the command line, as a user calls it."""

import sys
from typing import NamedTuple

import pytest
from nearflash.cli import main


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def nearflash(monkeypatch, capsys):
    """The command in this process: torch is imported once."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["nearflash", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            main()
        return Result(e.value.code or 0, *capsys.readouterr())

    return call
