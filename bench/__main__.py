"""``python -m bench [names] [--quick] [--json FILE]``: all benches, or the named ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import (
    block_io,
    composition,
    despeckle,
    lookup,
    modelled,
    mqsim,
    shell,
    simulators,
    tensor,
    tensor_boards,
    tensor_size,
    tensor_tile,
    timing_grid,
    timing_speed,
    virtual_board,
)
from .report import finish

BENCHES = {"lookup": lookup, "block_io": block_io, "composition": composition, "simulators": simulators,
           "timing_speed": timing_speed, "timing_grid": timing_grid, "mqsim": mqsim, "modelled": modelled,
           "despeckle": despeckle, "tensor": tensor, "tensor_tile": tensor_tile, "tensor_size": tensor_size,
           "tensor_boards": tensor_boards,
           "shell": shell, "virtual_board": virtual_board}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter windows")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench named {unknown[0]!r}: they are {', '.join(BENCHES)}")
    results = {}
    for name in args.names or BENCHES:
        results[name] = BENCHES[name].measure(args.quick)
        finish(args.json, results)  # after each, so that an interrupted run keeps what it measured
    return 0


if __name__ == "__main__":
    sys.exit(main())
