"""What a despeckler does to the radiometry of SAR scenes: simulated ones whose truth is known, and real ones.

``python -m bench.radiometry --method base --real real_sar --json radiometry.json``. Every line is a requirement: what an
even area's ratio image, mean and ENL must be, edges, bright targets, tiles. Speckle is that of a spaceborne complex image
(sampled 1.25 times denser than its band) unless a line says otherwise; figures are means over ``--seeds`` realisations.
``--real`` names the folder with the three real scenes that the documentation speaks of; a scene that isn't there is said to
be missing. ``--checkpoint`` measures other weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nearflash.sar import despeckle
from nearflash.sar.compare import compare
from nearflash.sar.evaluate import CORRELATED
from nearflash.sar.io import read_array
from nearflash.sar.methods import METHOD_NAMES
from nearflash.sar.metrics import enl, epd_roa, mean_kept, ratio_statistics
from nearflash.sar.speckle import SystemResponse, speckled
from nearflash.sar.tiles import RAMP, plan_axis
from PIL import Image

from .report import Rows, finish, progress, show_rows

__all__ = ["main", "measure"]

BORDER = 16  # pixels between an area and what is measured in it
SPECKLE = {"white": None, "correlated": CORRELATED, "oversampled by 2": SystemResponse((0.5, 0.5), (0.75, 0.75)),
           "oversampled by 2.5": SystemResponse((0.4, 0.4), (0.75, 0.75))}
# file, domain, dB per unit, looks
REAL = (("perera_test_01.png", None, 1.0, 1.0), ("pyrosar_s1_VV_db.tif", "db", 1.0, 4.4),
        ("felix_s1_sig38.tif", "db", 10.0, 100.0))
COLUMNS = (("what", "what", ""), ("case", "case", ""), ("value", "measured", ".3f"), ("wanted", "wanted", ""))

RESAMPLED = "on a map's grid"  # white, interpolated to pixels 1.8 times smaller
ZOOM = 1.8

Run = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Line:
    what: str
    case: str
    value: float
    low: float | None = None
    high: float | None = None

    def row(self) -> dict[str, Any]:
        low, high = self.low, self.high
        wanted = ("" if low is None and high is None else f"at least {low:g}" if high is None else f"at most {high:g}"
                  if low is None else f"{low:g} to {high:g}")
        value = float(self.value)
        met = (low is None or value >= low) and (high is None or value <= high)
        return {"what": self.what, "case": self.case, "value": value, "wanted": wanted + ("" if met else ", missed"),
                "met": met}


def inner(image: np.ndarray) -> np.ndarray:
    return image[BORDER:-BORDER, BORDER:-BORDER].astype(np.float64)


def simulated(clean: np.ndarray, looks: int, seed: int, speckle: str) -> np.ndarray:
    """Noisy intensity of ``clean`` [H, W], by the name of its speckle."""
    rng = np.random.default_rng(seed)
    if speckle != RESAMPLED:
        return speckled(clean, looks, rng, SPECKLE[speckle])
    height, width = clean.shape
    coarse = Image.fromarray(clean).resize((round(width / ZOOM), round(height / ZOOM)), Image.Resampling.BOX)
    noisy = Image.fromarray(speckled(np.asarray(coarse), looks, rng))
    return np.asarray(noisy.resize((width, height), Image.Resampling.BILINEAR))


def even_areas(run: Run, seeds: int) -> Iterator[Line]:
    for looks in (1, 4):
        for name in (*SPECKLE, RESAMPLED):
            found = []
            for seed in range(seeds):
                noisy = simulated(np.full((320, 320), 7.0, np.float32), looks, seed, name)
                x, y = inner(noisy), inner(run(noisy, looks))
                ratio_mean, ratio_variance = ratio_statistics(x, y)
                # Interpolation leaves less variance than 1/L: there the input's own counts
                expected_looks = enl(x) if name == RESAMPLED else looks
                found.append((ratio_mean, ratio_variance * expected_looks, mean_kept(x, y), enl(y) / enl(x)))
            mean, variance, kept, gain = np.mean(found, axis=0)
            case = f"even area, L = {looks}, {name}"
            yield Line("ratio mean", case, mean, 0.98, 1.02)
            yield Line("ratio variance / input's" if name == RESAMPLED else "ratio variance x L", case, variance, 0.9, 1.1)
            yield Line("mean kept", case, kept, 0.98, 1.02)
            yield Line("ENL gain", case, gain, 20)


def even_areas_in_a_photograph(run: Run, seeds: int) -> Iterator[Line]:
    """Constant squares in scikit-image's ``camera``: what is beside them mustn't make speckle look like texture."""
    from skimage import data

    clean = ((data.camera().astype(np.float32) + 1) / 256) ** 2
    side = 96
    places = [(slice(r, r + side), slice(c, c + side)) for r in (40, 360) for c in (60, 210, 370)]
    for place in places:
        clean[place] = clean[place].mean()
    for looks in (1, 4):
        for name in (*list(SPECKLE)[:3], RESAMPLED):
            found = []
            for seed in range(seeds):
                noisy = simulated(clean, looks, seed, name)
                out = run(noisy, looks)
                for place in places:
                    x, y = inner(noisy[place]), inner(out[place])
                    ratio_mean, ratio_variance = ratio_statistics(x, y)
                    found.append((ratio_mean, ratio_variance * enl(x), mean_kept(x, y)))
            mean, variance, kept = np.mean(found, axis=0)
            case = f"squares in a photograph, L = {looks}, {name}"
            yield Line("ratio mean", case, mean, 0.98, 1.02)
            yield Line("ratio variance / input's", case, variance, 0.9, 1.1)
            yield Line("mean kept", case, kept, 0.98, 1.02)


def fields(run: Run, seeds: int) -> Iterator[Line]:
    side = 128
    levels = np.array([[0, -15, 3, -6], [10, 0, -3, 6], [-3, 20, 0, -10], [-1, 2, -9, 14]])
    clean = np.kron(10 ** (levels / 10), np.ones((side, side))).astype(np.float32)
    for looks in (1, 4):
        before, after = np.zeros((2, 4, 4))
        for seed in range(seeds):
            noisy = speckled(clean, looks, np.random.default_rng(seed), CORRELATED)
            for total, image in ((before, noisy), (after, run(noisy, looks))):
                total += image.reshape(4, side, 4, side)[:, BORDER:-BORDER, :, BORDER:-BORDER].mean((1, 3), dtype=float)
        yield Line("largest error of a field's mean", f"-15 to +20 dB, L = {looks}", np.abs(after / before - 1).max(), None,
                   0.02)


def edges(run: Run, seeds: int) -> Iterator[Line]:
    for contrast in (3, 6, 10):
        clean = np.ones((192, 192), np.float32)
        clean[:, 96:] = 10 ** (contrast / 10)
        step, kept = np.zeros(192), []
        for seed in range(seeds):
            noisy = speckled(clean, 1, np.random.default_rng(seed), CORRELATED)
            out = run(noisy, 1)
            kept.append(epd_roa(np.sqrt(noisy), np.sqrt(out), window=(slice(BORDER, -BORDER), slice(90, 102)), side=3))
            step += np.sqrt(out[BORDER:-BORDER]).mean(0) / seeds
        share = (step - 1) / (10 ** (contrast / 20) - 1)
        low, high = np.interp([0.1, 0.9], share[84:108], np.arange(84, 108))
        yield Line("EPD-ROA, 3 x 5 pixels", f"edge of {contrast} dB, L = 1", float(np.mean(kept)), 0.8)
        yield Line("width from 10 to 90 % (pixels)", f"edge of {contrast} dB, L = 1", high - low)


def targets(run: Run, seeds: int) -> Iterator[Line]:
    side, places = 192, [(48, 48), (48, 140), (140, 50), (141.5, 140.5), (96, 96)]
    y, x = np.mgrid[:side, :side]
    for decibel in (20, 30, 40):
        peaks, rings = [], []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            response = (np.exp(2j * np.pi * rng.random() - ((y - a) ** 2 + (x - b) ** 2) / (2 * 0.7**2)) for a, b in places)
            echo = 10 ** (decibel / 20) * sum(response)
            noisy = speckled(np.ones((side, side), np.float32), 1, rng, CORRELATED, np.asarray(echo, np.complex64))
            out = run(noisy, 1)
            for a, b in places:
                distance = np.hypot(y - a, x - b)
                peaks.append(out[distance <= 1].max() / noisy[distance <= 1].max())
                ring = out[(distance > 5) & (distance < 14)]
                rings.append((ring.mean(), ring.min(), ring.max()))
        mean, low, high = np.mean(rings, axis=0)
        case = f"target {decibel} dB above clutter, L = 1"
        yield Line("peak kept", case, float(np.mean(peaks)))
        yield Line("mean 5 to 14 pixels beside it", case, mean, 0.95, 1.05)
        yield Line("darkest pixel there", case, low)
        yield Line("brightest pixel there", case, high)


def seams(method: str, checkpoint: Path | None) -> Iterator[Line]:
    side, tile = 640, 256
    noisy = speckled(np.ones((side, side), np.float32), 1, np.random.default_rng(5), CORRELATED)
    tiled, whole = (despeckle(noisy, looks=1, method=method, checkpoint=checkpoint, tile=t) for t in (tile, 2 * side))
    at = np.zeros(side - 1, bool)
    for start in plan_axis(side, tile, 32, 32).ramps:
        at[start - 1 : start + RAMP] = True
    steps = [np.abs(np.diff(tiled.mean(axis, dtype=float))) for axis in (0, 1)]
    yield Line("change by tiles (rms)", "even area, L = 1", float(np.sqrt(np.mean((tiled / whole - 1) ** 2))), None, 0.02)
    joints = np.mean([s[at].mean() / s[~at].mean() for s in steps])
    yield Line("steps at joints / elsewhere", "even area, L = 1", joints, None, 1.5)


def real_scenes(folder: Path, method: str, checkpoint: Path | None) -> Iterator[Line]:
    for name, domain, scale, looks in REAL:
        if not (folder / name).exists():
            yield Line("file missing", name, 0.0)
            continue
        noisy, _ = read_array(folder / name, domain, db_scale=scale)
        m = compare(noisy, [method], looks, checkpoint=checkpoint).metrics[method]
        yield Line("ENL in", name, m["enl_in"])
        yield Line("ENL out", name, m["enl_out"])
        yield Line("ratio mean", name, m["ratio_mean"], 0.98, 1.02)
        if looks < 10:  # in an average over time the ground varies more than the speckle
            yield Line("ratio variance x L", name, m["ratio_variance"] * looks, 0.9, 1.1)
            yield Line("ratio variance / input's", name, m["ratio_variance_over_input"], 0.9, 1.1)
        yield Line("mean kept", name, m["mean_kept"], 0.98, 1.02)
        yield Line("EPD-ROA, 3 x 5 pixels", name, min(m["epd_roa_side3_horizontal"], m["epd_roa_side3_vertical"]), 0.8)


def measure(method: str = "base", checkpoint: Path | None = None, seeds: int = 3, real: Path | None = None) -> Rows:
    def run(noisy: np.ndarray, looks: float) -> np.ndarray:
        return despeckle(noisy, looks=looks, method=method, checkpoint=checkpoint)

    parts: list[tuple[str, Iterator[Line]]] = [(f.__name__.replace("_", " "), f(run, seeds)) for f in (
        even_areas, even_areas_in_a_photograph, fields, edges, targets)]
    parts.append(("seams", seams(method, checkpoint)))
    if real is not None:
        parts.append(("real scenes", real_scenes(real, method, checkpoint)))
    rows: Rows = []
    with progress() as bar:
        task = bar.add_task(f"radiometry of {method}", total=len(parts), note="")
        for note, lines in parts:
            bar.update(task, note=note)
            rows += [line.row() for line in lines]
            bar.advance(task)
    show_rows(f"radiometry of {method}, {seeds} seeds", COLUMNS, rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.radiometry", description=__doc__)
    parser.add_argument("--method", default="base", choices=METHOD_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real", type=Path, help="folder of the real scenes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    finish(args.json, {"radiometry": measure(args.method, args.checkpoint, args.seeds, args.real)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
