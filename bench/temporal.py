"""Dates of one place despeckled together against each alone: PSNR on simulated stacks, and a change that must stay.

``python -m bench.temporal --method base --json temporal.json``. The ground is scikit-image's ``camera`` (512 x 512), each
date its own speckle; on the last date a square of it is 6 dB brighter, and a target stands where none was before. "Ghost" is
how bright the first date comes out there, over its truth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nearflash.sar.evaluate import CORRELATED
from nearflash.sar.files import Settings, attempt, plan_jobs
from nearflash.sar.methods import METHOD_NAMES, Method, load_method
from nearflash.sar.metrics import psnr
from nearflash.sar.speckle import SystemResponse, speckled
from nearflash.sar.temporal import despeckle_dates

from .report import Rows, finish, show_rows

__all__ = ["main", "measure"]

SQUARE, TARGET = np.s_[300:340, 80:120], (200, 400)
TARGET_DB = 20.0
COLUMNS = (("speckle", "speckle", ""), ("looks", "looks", ""), ("dates", "dates", ""),
           ("alone_psnr_db", "alone (dB)", ".2f"), ("together_psnr_db", "together (dB)", ".2f"),
           ("changed_kept", "changed square kept", ".3f"),
           ("target_kept", "new target kept", ".3f"), ("ghost", "ghost", ".2f"), ("mean_kept", "mean kept", ".4f"))


def stack(dates: int, looks: int, response: SystemResponse | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Clean and noisy intensity of each date."""
    from skimage import data

    ground = ((data.camera().astype(np.float64) + 1) / 256) ** 2
    clean, noisy = [], []
    for date in range(dates):
        scene, targets = ground.copy(), None
        if date == dates - 1:
            scene[SQUARE] *= 4
            targets = np.zeros(scene.shape, np.complex64)
            targets[TARGET] = np.sqrt(scene[TARGET] * 10 ** (TARGET_DB / 10))
        noisy.append(speckled(scene, looks, np.random.default_rng([looks, date]), response, targets))
        clean.append(scene)
    return clean, noisy


def measure(method: Method) -> Rows:
    name, rows = method.name, []
    for speckle, response in (("white", None), ("correlated", CORRELATED)):
        for looks, dates in ((1, 3), (1, 8), (4, 8)):
            clean, noisy = stack(dates, looks, response)
            with tempfile.TemporaryDirectory() as folder:
                here = Path(folder)
                (here / "in").mkdir()
                for k, image in enumerate(noisy):
                    np.save(here / "in" / f"{k:02}.npy", image)
                jobs = plan_jobs([str(here / "in")], here / "out", Settings(name, looks, "intensity"))
                despeckle_dates(jobs, method)
                earlier, together = np.load(jobs[0].target), np.load(jobs[-1].target)
                alone = plan_jobs([str(jobs[-1].source)], here / "alone.npy", Settings(name, looks, "intensity"))[0]
                if error := attempt(alone, method).error:
                    raise RuntimeError(error)
                single = np.load(alone.target)
            truth = np.sqrt(clean[-1])
            scores = [psnr(truth, np.clip(np.sqrt(out), 0, 1)) for out in (single, together)]
            inner = tuple(slice(s.start + 6, s.stop - 6) for s in SQUARE)
            rows.append({"speckle": speckle, "looks": looks, "dates": dates, "alone_psnr_db": scores[0],
                         "together_psnr_db": scores[1],
                         "changed_kept": float(together[inner].mean() / clean[-1][inner].mean()),
                         "target_kept": float(together[TARGET] / noisy[-1][TARGET]),
                         "ghost": float(earlier[TARGET] / clean[0][TARGET]),
                         "mean_kept": float(together.mean() / noisy[-1].mean())})
    show_rows(f"the last date of a stack, {name}", COLUMNS, rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.temporal", description=__doc__)
    parser.add_argument("--method", default="base", choices=METHOD_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    finish(args.json, {"temporal": measure(load_method(args.method, checkpoint=args.checkpoint))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
