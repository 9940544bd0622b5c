"""``python -m bench [names] [--quick] [--json FILE]``: all benches, or the named ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nearflash.figures import figure_format

from . import (
    admission,
    block_io,
    both_at_once,
    bound,
    composition,
    despeckle,
    locality,
    lookup,
    modelled,
    mqsim,
    order,
    placement,
    planes,
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
           "timing_speed": timing_speed, "timing_grid": timing_grid, "mqsim": mqsim, "modelled": modelled, "bound": bound,
           "locality": locality, "planes": planes, "order": order, "admission": admission, "placement": placement,
           "despeckle": despeckle, "tensor": tensor, "tensor_tile": tensor_tile, "tensor_size": tensor_size,
           "both_at_once": both_at_once, "tensor_boards": tensor_boards,
           "shell": shell, "virtual_board": virtual_board}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter windows")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="of tensor_tile alone: draw its roofline here (PNG, PDF or SVG)")
    parser.add_argument("--figures", type=Path, help="with --plot: from what an earlier --json wrote, without a run")
    args = parser.parse_args(argv)
    if args.plot is not None:
        if args.names != ["tensor_tile"]:
            parser.error("--plot is of the bench tensor_tile alone")
        figure_format(args.plot, "--plot")
    if args.figures is not None:
        if args.plot is None:
            parser.error("--figures has no effect without --plot")
        for name in ("json", "quick"):
            if getattr(args, name):
                parser.error(f"--{name} has no effect with --figures: nothing is run")
        tensor_tile.plot(tensor_tile.read_rows(args.figures), args.plot)
        return 0
    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench named {unknown[0]!r}: they are {', '.join(BENCHES)}")
    results = {}
    for name in args.names or BENCHES:
        results[name] = BENCHES[name].measure(args.quick)
        finish(args.json, results)  # after each, so that an interrupted run keeps what it measured
    if args.plot is not None:
        tensor_tile.plot(results["tensor_tile"], args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
