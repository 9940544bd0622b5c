"""The self-test's command where it can't run; tests/board runs it on virtual boards."""

import sys

from nearflash.selftest import main


def test_without_pynq_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pynq", None)
    assert main(["tiny.bit"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "pynq" in said.err
    assert "pip install '.[board]'" in said.err
