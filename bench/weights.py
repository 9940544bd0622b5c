"""Every figure of docs/despeckling_models.md that belongs to a network's weights, in one run.

``python -m bench.weights bsds500/val --checkpoint runs/6/weights.npz --real real_sar --json weights.json``: PSNR and SSIM on
the folder's images (``--images``: the first so many) at one look and at four, with and without strong scatterers kept;
``bench.local_mean``; ``bench.radiometry``, of the real scenes also the network alone; ``bench.slc``; ``bench.temporal``.
The file is written after each of them, so that an interrupted run keeps what it measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nearflash.sar.evaluate import CORRELATED, CleanImage, evaluate, load_images
from nearflash.sar.methods import NETWORK_NAMES, Method, load_method

from . import local_mean, radiometry, slc, temporal
from .report import Rows, finish, progress, show_rows

__all__ = ["main"]

COLUMNS = (("scatterers", "strong scatterers", ""), ("speckle", "speckle", ""), ("looks", "looks", "g"),
           ("psnr_db", "PSNR (dB)", ".3f"), ("ssim", "SSIM", ".3f"))
FEW = 12  # images for bench.local_mean; half of them for bench.slc


def scores(whole: Method, alone: Method, images: list[CleanImage]) -> Rows:
    """One seed; correlated speckle of a single look for the whole method alone."""
    rows: Rows = []
    cases = [(whole, "kept", 1, None), (whole, "kept", 4, None), (whole, "kept", 1, CORRELATED),
             (alone, "not kept", 1, None), (alone, "not kept", 4, None)]
    with progress() as bar:
        task = bar.add_task("scores", total=len(cases), note="")
        for method, scatterers, looks, response in cases:
            result = evaluate(images, method, looks, 1, response=response)
            rows.append({"scatterers": scatterers, "speckle": result["speckle"], "looks": looks,
                         "psnr_db": result["psnr_db"], "ssim": result["ssim"]})
            bar.advance(task)
    show_rows(f"{whole.name} on {len(images)} images, one seed", COLUMNS, rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.weights", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of clean 8-bit images that the network wasn't trained on")
    parser.add_argument("--method", default="base", choices=NETWORK_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--images", type=int, help="score the first so many (default all)")
    parser.add_argument("--seeds", type=int, default=2, help="realisations of simulated scenes (default 2)")
    parser.add_argument("--real", type=Path, action="append", default=[], help="a folder of real scenes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    for key in ("images", "seeds"):
        if getattr(args, key) is not None and getattr(args, key) < 1:
            parser.error(f"--{key} must be at least 1")
    name, checkpoint = args.method, args.checkpoint
    whole, alone = load_method(name, checkpoint=checkpoint), radiometry.alone(name, checkpoint)
    parts = {"scores": lambda: scores(whole, alone, load_images(args.photographs, args.images)),
             "local_mean": lambda: local_mean.measure(name, load_images(args.photographs, FEW), args.seeds, checkpoint),
             "radiometry": lambda: radiometry.measure(whole, args.seeds, args.real),
             "slc": lambda: slc.measure(whole, load_images(args.photographs, FEW // 2), args.real),
             "temporal": lambda: temporal.measure(whole)}
    if args.real:
        parts["radiometry_alone"] = lambda: radiometry.measure(alone, args.seeds, args.real, simulations=False)
    results: dict[str, Rows] = {}
    for part, run in parts.items():
        results[part] = run()
        finish(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
