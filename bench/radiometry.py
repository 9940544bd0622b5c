"""What a despeckler does to the radiometry of SAR scenes: simulated ones whose truth is known, and real ones.

``python -m bench.radiometry --method base --real real_sar --json radiometry.json``. Every line is a requirement: what an
even area's ratio image, mean and ENL must be, edges, bright targets, tiles. Speckle is that of a spaceborne complex image
(sampled 1.25 times denser than its band) unless a line says otherwise; figures are means over ``--seeds`` realisations.
``--real`` (several times for several) names folders with the real scenes that the documentation speaks of, complex ones in
a folder ``slc`` of theirs; one that isn't there is said to be missing. Peaks 15 dB above their surroundings, a network's own
pattern of period 2 and what moving a crop by a pixel changes are measured there too. ``--checkpoint`` measures other
weights, ``--device fabric-model`` the network in int8, ``--alone`` a network without the strong scatterers kept around it,
``--only real`` leaves out the simulated scenes. What was missed is listed at the end.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nearflash.sar import despeckle, network, simulated
from nearflash.sar.io import read_array, read_complex
from nearflash.sar.looks import estimate_looks
from nearflash.sar.methods import METHOD_NAMES, NETWORK_NAMES, Method, load_method, network_method
from nearflash.sar.metrics import enl, epd_roa, mean_kept, no_reference_report, ratio_statistics
from nearflash.sar.peaks import peaks_kept
from nearflash.sar.simulated import MAP_GRID, SPECKLE, inner, observed
from nearflash.sar.training.cities import simulated_town
from nearflash.sar.training.goals import RESPONSES, moved_rms
from scipy.ndimage import uniform_filter

from .report import Rows, finish, progress, show_rows

__all__ = ["alone", "main", "measure"]

# file, domain, dB per unit, looks, pixels on a side of the windows measured on
REAL = (("perera_test_01.png", None, 1.0, 1.0, (32,)),
        ("pyrosar_s1_VV_db.tif", "db", 1.0, 4.4, (32, 16)),  # few fields are larger
        ("felix_s1_sig38.tif", "db", 10.0, 100.0, (32,)))
#: A town of 4.4 looks, intensity: its own estimate of the looks is tried too
TOWN, TOWN_LOOKS = "04_whu_S1_VH_city_crop_intensity.npy", 4.4
# single-look complex, in the folder slc
COMPLEX = ("uavsar_winnipeg_HH_slc.npy", "uavsar_san_andreas_HH_slc.npy")
AROUND, EVEN = 8, 0.1  # pixels on a side of what a pattern is relative to, and what of it can be one
FEWEST_PEAKS = 20  # of which a tenth percentile says something
COLUMNS = (("what", "what", ""), ("case", "case", ""), ("value", "measured", ".3f"), ("wanted", "wanted", ""))

Run = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Line:
    """A figure, None where there is none, and the limits that it must keep, if any."""

    what: str
    case: str
    value: float | None
    low: float | None = None
    high: float | None = None

    def row(self) -> dict[str, Any]:
        low, high = self.low, self.high
        wanted = ("" if low is None and high is None else f"at least {low:g}" if high is None else f"at most {high:g}"
                  if low is None else f"{low:g} to {high:g}")
        value = None if self.value is None else float(self.value)
        met = value is not None and (low is None or value >= low) and (high is None or value <= high)
        missed = ", missed" if wanted and not met else ""
        return {"what": self.what, "case": self.case, "value": value, "wanted": wanted + missed,
                "met": met if wanted else None}


def even_areas(run: Run, seeds: int) -> Iterator[Line]:
    for looks in (1, 4):
        for name in (*SPECKLE, MAP_GRID):
            found = []
            for seed in range(seeds):
                noisy = observed(simulated.even_area(), looks, seed, name)
                x, y = inner(noisy), inner(run(noisy, looks))
                ratio_mean, ratio_variance = ratio_statistics(x, y)
                # Interpolation leaves less variance than 1/L: there the input's own counts
                expected_looks = enl(x) if name == MAP_GRID else looks
                found.append((ratio_mean, ratio_variance * expected_looks, mean_kept(x, y), enl(y) / enl(x)))
            mean, variance, kept, gain = np.mean(found, axis=0)
            case = f"even area, L = {looks}, {name}"
            yield Line("ratio mean", case, mean, 0.98, 1.02)
            yield Line("ratio variance / input's" if name == MAP_GRID else "ratio variance x L", case, variance, 0.9, 1.1)
            yield Line("mean kept", case, kept, 0.98, 1.02)
            yield Line("ENL gain", case, gain, 20)


def even_areas_in_a_photograph(run: Run, seeds: int) -> Iterator[Line]:
    """What is beside an even square mustn't make its speckle look like texture."""
    clean, places = simulated.squares_in_a_photograph()
    for looks in (1, 4):
        for name in (*list(SPECKLE)[:3], MAP_GRID):
            found = []
            for seed in range(seeds):
                noisy = observed(clean, looks, seed, name)
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
    clean = simulated.fields()
    for looks in (1, 4):
        noisy = [observed(clean, looks, seed) for seed in range(seeds)]
        kept = simulated.fields_kept(noisy, [run(i, looks) for i in noisy])
        yield Line("largest error of a field's mean", f"-15 to +20 dB, L = {looks}", np.abs(kept - 1).max(), None, 0.02)


def edges(run: Run, seeds: int) -> Iterator[Line]:
    for contrast in (3, 6, 10):
        noisy = [observed(simulated.edge(contrast), 1, seed) for seed in range(seeds)]
        out = [run(i, 1) for i in noisy]
        kept = [epd_roa(np.sqrt(x), np.sqrt(y), window=simulated.EDGE_WINDOW, side=3)
                for x, y in zip(noisy, out, strict=True)]
        yield Line("EPD-ROA, 3 x 5 pixels", f"edge of {contrast} dB, L = 1", float(np.mean(kept)), 0.8)
        yield Line("width from 10 to 90 % (pixels)", f"edge of {contrast} dB, L = 1", simulated.edge_width(out, contrast))


def targets(run: Run, seeds: int) -> Iterator[Line]:
    for decibel in (20, 30, 40):
        peaks, rings = [], []
        for seed in range(seeds):
            clutter, echo = simulated.point_targets(10 ** (decibel / 20), np.random.default_rng([seed, 1]))
            noisy = observed(clutter, 1, seed, targets=echo)
            out = run(noisy, 1)
            for core, ring in simulated.around_targets():
                peaks.append(out[core].max() / noisy[core].max())
                rings.append((out[ring].mean(), out[ring].min(), out[ring].max()))
        mean, low, high = np.mean(rings, axis=0)
        case = f"target {decibel} dB above clutter, L = 1"
        yield Line("peak kept", case, float(np.mean(peaks)))
        yield Line("mean 5 to 14 pixels beside it", case, mean, 0.95, 1.05)
        yield Line("darkest pixel there", case, low)
        yield Line("brightest pixel there", case, high)


def seams(method: Method) -> Iterator[Line]:
    side, tile = 640, 256
    noisy = observed(np.ones((side, side), np.float32), 1, 5)
    tiled, whole = (despeckle(noisy, domain="intensity", looks=1, method=method, tile=t) for t in (tile, 2 * side))
    at = simulated.joints(side, tile, method.margin, method.multiple)
    yield Line("change by tiles (rms)", "even area, L = 1", float(np.sqrt(np.mean((tiled / whole - 1) ** 2))), None, 0.02)
    yield Line("steps at joints / elsewhere", "even area, L = 1", simulated.steps_at_joints(tiled, at).mean(), None, 1.5)


def towns(run: Run, seeds: int) -> Iterator[Line]:
    """Clusters of scatterers as several sensors see them."""
    for looks in (1, 4):
        for k, response in enumerate(RESPONSES):
            shares, kept = [], []
            for seed in range(seeds):
                noisy = simulated_town(np.random.default_rng([seed, k, 5]), 256, looks, response)
                out = run(noisy, looks)
                shares.append(peaks_kept(noisy, out))
                kept.append(mean_kept(noisy, out))
            rows, columns = response.bandwidth
            yield from peaks(np.concatenate(shares), f"town, L = {looks}, oversampled by {1 / rows:.2g} x {1 / columns:.2g}")
            yield Line("mean kept", f"town, L = {looks}, oversampled by {1 / rows:.2g} x {1 / columns:.2g}",
                       float(np.mean(kept)), 0.99, 1.01)


def peaks(share: np.ndarray, case: str) -> Iterator[Line]:
    """What is kept of peaks 15 dB above their surroundings."""
    yield Line("peaks", case, len(share))
    if len(share):
        yield Line("peaks kept, median", case, float(np.median(share)), 0.95)
    if len(share) >= FEWEST_PEAKS:
        yield Line("peaks kept, tenth percentile", case, float(np.quantile(share, 0.1)), 0.8)


def lattice(image: np.ndarray) -> float:
    """Amplitude of the pattern of period 2 in an image, relative to the brightness around: the largest of that of rows, of
    columns and of a checkerboard. What differs more than :data:`EVEN` from its surroundings is structure and counts as that
    much, or a few targets would be all that is seen."""
    around = uniform_filter(image.astype(np.float64), AROUND)
    relative = np.clip(image / np.maximum(around, np.finfo(np.float32).tiny) - 1, -EVEN, EVEN)
    height, width = (n // 2 * 2 for n in image.shape)
    phases = relative[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((0, 2))
    signs = (np.array([[1, -1], [1, -1]]), np.array([[1, 1], [-1, -1]]), np.array([[1, -1], [-1, 1]]))
    return max(abs(float((phases * sign).mean())) for sign in signs)


def texture(run: Run, noisy: np.ndarray, out: np.ndarray, looks: float, case: str) -> Iterator[Line]:
    yield Line("pattern of period 2", case, lattice(out), None, 0.002)
    change = moved_rms(lambda amplitude, n: np.sqrt(run(amplitude**2, n)), np.sqrt(noisy), looks)
    yield Line("change by a moved crop (rms)", case, change, None, 0.02)


def find(folders: Sequence[Path], name: str) -> Path | None:
    return next((f / name for f in folders if (f / name).exists()), None)


def complex_scenes(run: Run, folders: Sequence[Path]) -> Iterator[Line]:
    for name in COMPLEX:
        path = find(folders, f"slc/{name}")
        if path is None:
            yield Line("file missing", name, None)
            continue
        noisy = np.abs(read_complex(path)) ** 2
        out = run(noisy, 1)
        report = no_reference_report(noisy, out, 1)
        yield Line("ratio mean", name, report["ratio_mean"], 0.98, 1.02)
        yield Line("ratio variance x L", name, report["ratio_variance"], 0.9, 1.1)
        yield Line("mean kept", name, report["mean_kept"], 0.98, 1.02)
        yield from peaks(peaks_kept(noisy, out), name)
        yield from texture(run, noisy, out, 1, name)


def town(run: Run, folders: Sequence[Path]) -> Iterator[Line]:
    path = find(folders, TOWN)
    if path is None:
        yield Line("file missing", TOWN, None)
        return
    noisy = np.load(path).astype(np.float32)
    estimate = estimate_looks([noisy])
    for looks, case in ((TOWN_LOOKS, f"{TOWN}, L = {TOWN_LOOKS}"), (estimate.looks if estimate else 1.0, f"{TOWN}, L auto")):
        out = run(noisy, looks)
        yield Line("looks", case, looks)
        yield from peaks(peaks_kept(noisy, out), case)
        yield Line("mean kept", case, mean_kept(noisy, out), 0.99, 1.01)
    yield from texture(run, noisy, run(noisy, TOWN_LOOKS), TOWN_LOOKS, TOWN)


def real_scenes(run: Run, folders: Sequence[Path]) -> Iterator[Line]:
    def times(factor: float, value: float | None) -> float | None:
        return None if value is None else factor * value

    for name, domain, scale, looks, sizes in REAL:
        path = find(folders, name)
        if path is None:
            yield Line("file missing", name, None)
            continue
        noisy, _ = read_array(path, domain, db_scale=scale)
        out = run(noisy, looks)
        if np.isfinite(noisy).all():
            yield from peaks(peaks_kept(noisy, out), name)
            yield from texture(run, noisy, out, looks, name)
        reports = [no_reference_report(noisy, out, looks, size=size) for size in sizes]
        for size, m in zip(sizes, reports, strict=True):
            case = f"{name}, {size}-pixel windows"
            yield Line("ENL in", case, m["enl_in"])
            yield Line("ENL out", case, m["enl_out"])
            yield Line("ratio mean", case, m["ratio_mean"], 0.98, 1.02)
            if looks < 10:  # in an average over time the ground varies more than the speckle
                yield Line("ratio variance x L", case, times(looks, m["ratio_variance"]), 0.9, 1.1)
                yield Line("ratio variance / input's", case, m["ratio_variance_over_input"], 0.9, 1.1)
        whole = reports[0]
        yield Line("mean kept", name, whole["mean_kept"], 0.98, 1.02)
        kept = [whole[f"epd_roa_side3_{d}"] for d in ("horizontal", "vertical")]
        yield Line("EPD-ROA, 3 x 5 pixels", name, None if None in kept else min(kept), 0.8)


def alone(name: str, checkpoint: Path | None = None, device: str = "cpu") -> Method:
    """A network without the strong scatterers kept around it."""
    return network_method(network.load(name, checkpoint, device), scatterers=False)


def measure(method: Method, seeds: int = 3, real: Sequence[Path] = (), *, simulations: bool = True) -> Rows:
    def run(noisy: np.ndarray, looks: float) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="image: taken for")  # its domain is known here
            return despeckle(noisy, domain="intensity", looks=looks, method=method)

    parts: list[tuple[str, Iterator[Line]]] = []
    if simulations:
        parts += [(f.__name__.replace("_", " "), f(run, seeds)) for f in (
            even_areas, even_areas_in_a_photograph, fields, edges, targets, towns)]
        parts.append(("seams", seams(method)))
    if real:
        parts += [(f.__name__.replace("_", " "), f(run, real)) for f in (real_scenes, town, complex_scenes)]
    rows: Rows = []
    for note, lines in parts:
        with progress() as bar:
            bar.add_task(f"radiometry of {method.name}", total=None, note=note)
            found = [line.row() for line in lines]
        show_rows(f"{note}: {method.name}, {seeds} seeds", COLUMNS, found)  # as it comes: a long run may be ended
        rows += found
    if missed := [row for row in rows if row["met"] is False or row["what"] == "file missing"]:
        show_rows("missed", COLUMNS, missed)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.radiometry", description=__doc__)
    parser.add_argument("--method", default="base", choices=METHOD_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "fabric-model"),
                        help="where the network runs; fabric-model: in int8, bit for bit as the tensor engine computes")
    parser.add_argument("--alone", action="store_true", help="the network without the strong scatterers kept around it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real", type=Path, action="append", default=[], help="a folder of real scenes")
    parser.add_argument("--only", choices=("real",), help="leave out the simulated scenes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if args.only and not args.real:
        parser.error("--only real needs --real")
    if args.alone and args.method not in NETWORK_NAMES:
        parser.error(f"--alone needs a network, of {', '.join(NETWORK_NAMES)}")
    if args.device != "cpu" and args.method not in NETWORK_NAMES:
        parser.error(f"--device needs a network, of {', '.join(NETWORK_NAMES)}")
    method = (alone(args.method, args.checkpoint, args.device) if args.alone
              else load_method(args.method, checkpoint=args.checkpoint, device=args.device))
    finish(args.json, {"radiometry": measure(method, args.seeds, args.real, simulations=not args.only)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
