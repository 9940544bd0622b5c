"""``python -m nearflash.selftest overlay.bit``: the checks of :mod:`nearflash.board.selftest`, and a report."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from .contract import NearflashError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all passed, 1 if a check failed, 2 for an overlay that can't be opened, or without pynq."""
    parser = argparse.ArgumentParser(
        prog="python -m nearflash.selftest", description="Check a board, real or virtual, against the integer reference.",
        epilog="Example: NEARFLASH_BOARD=sim:pynq-z2 python -m nearflash.selftest build/tiny/tiny.bit --json report.json")
    parser.add_argument("overlay", help="the .bit of `nearflash build`, or an overlay's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the report goes (default: only the table)")
    args = parser.parse_args(argv)
    try:
        importlib.import_module("pynq")  # --help needs none
    except ImportError as e:  # a board's image has it
        print(f"nearflash: pynq: {e}; pip install '.[board]' in a clone has the virtual board", file=sys.stderr)
        return 2
    from .board.selftest import Outcome, check_board

    def show(o: Outcome) -> None:
        print(f"{'ok  ' if o.passed else 'FAIL'}  {o.name:<20} {o.seconds:7.2f} s  {o.seen}", flush=True)

    try:
        outcomes, text = check_board(args.overlay, show)
    except (NearflashError, OSError) as e:
        print(f"nearflash: {type(e).__name__}: {e}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(text)
    return 0 if outcomes and all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
