"""Despeckling on CPU: megapixels per second of networks and filters against homomorphic BM3D, and the quality each buys.

Every method runs in this process, one after the other, on one 512 x 512 image with single-look speckle, after a run that
isn't counted; the time is the median of the runs. PyTorch and BM3D get ``--threads`` threads (default 2); the other filters
are single-threaded by nature. Quality is PSNR and SSIM on amplitude over the images of ``--set`` (protocol of ``nearflash
sar evaluate``, one seed), by default over four photographs that ship with scikit-image, none of them used for training. A
network without weights (none ship and none are given with ``--weights``) is timed with random ones and gets no quality.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nearflash.contract import ConfigError
from nearflash.sar import filters
from nearflash.sar.evaluate import CleanImage, evaluate, load_images
from nearflash.sar.methods import FILTER_NAMES, NETWORK_NAMES, Method, apply_method, load_method
from nearflash.sar.speckle import speckled

from .report import Rows, console, finish, progress, show_rows

__all__ = ["draw", "main", "measure"]

SIDE = 512
REFERENCE = "bm3d"
BUILT_IN = ("camera", "astronaut", "coins", "moon")
QUICK_METHODS = ("base", "tiny", "lee", "refined-lee", "nlm", "bm3d")


def built_in_images() -> list[CleanImage]:
    from skimage import color, data

    images = []
    for name in BUILT_IN:
        image = getattr(data, name)()
        gray = np.round(255 * color.rgb2gray(image)).astype(np.uint8) if image.ndim == 3 else image
        images.append(CleanImage(name, gray))
    return images


def find(name: str, threads: int, weights: Mapping[str, Path]) -> tuple[Method, bool]:
    """The method, and whether it is trained."""
    if name == "bm3d":
        return replace(load_method(name), apply=lambda z, looks: filters.bm3d(z, looks, threads)), True
    if name not in NETWORK_NAMES:
        return load_method(name), True
    try:
        return load_method(name, checkpoint=weights.get(name)), True
    except ConfigError:
        if name in weights:
            raise
    from nearflash.sar.models import build
    from nearflash.sar.network import Network

    net = Network(build(name), name)
    return Method(name, net.margin, net.multiple, True, net.despeckle), False


def seconds(method: Method, image: np.ndarray, runs: int) -> float:
    taken = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        apply_method(method, image, 1.0)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])


def measure(quick: bool = False, images: Sequence[CleanImage] | None = None, names: Sequence[str] | None = None,
            threads: int = 2, weights: Mapping[str, Path] | None = None) -> Rows:
    """Rows by method. ``quick``: one run each, of fewer methods on two images cut to 256 x 256."""
    import torch

    images = list(images or built_in_images())
    if quick:
        images = [CleanImage(i.name, i.gray[:256, :256]) for i in images[:2]]
    names = list(names or (QUICK_METHODS if quick else (*NETWORK_NAMES, *FILTER_NAMES)))
    if REFERENCE not in names:
        names.append(REFERENCE)
    first = images[0].gray
    square = np.pad(first, [(0, max(0, SIDE - n)) for n in first.shape], mode="symmetric")[:SIDE, :SIDE]
    noisy = speckled((square / 255.0) ** 2, 1.0, np.random.default_rng(0))

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows: Rows = []
    try:
        with progress() as bar:
            task = bar.add_task("despeckle", total=len(names), note="")
            for name in names:
                bar.update(task, note=name)
                method, trained = find(name, threads, weights or {})
                taken = seconds(method, noisy, 1 if quick else 3)
                score = evaluate(images, method, 1.0, seeds=1) if trained else {}
                rows.append({"method": name, "threads": threads if name in (*NETWORK_NAMES, REFERENCE) else 1,
                             "seconds": taken, "megapixels_per_second": noisy.size / 1e6 / taken,
                             "psnr_db": score.get("psnr_db"), "ssim": score.get("ssim"),
                             "noisy_psnr_db": score.get("noisy_psnr_db"), "images_count": len(images), "looks": 1.0,
                             "checkpoint_sha256": method.details.get("checkpoint_sha256")})
                bar.advance(task)
    finally:
        torch.set_num_threads(before)
    reference = next(r for r in rows if r["method"] == REFERENCE)
    for r in rows:
        r["speed_over_bm3d"] = r["megapixels_per_second"] / reference["megapixels_per_second"]
        r["psnr_gain_over_bm3d_db"] = None if r["psnr_db"] is None else r["psnr_db"] - reference["psnr_db"]
    rows.sort(key=lambda r: -r["megapixels_per_second"])
    show_rows(f"Despeckling, single look, {SIDE} x {SIDE}, on CPU", (
        ("method", "method", ""), ("threads", "threads", "d"), ("megapixels_per_second", "Mpx/s", ".3f"),
        ("speed_over_bm3d", "x BM3D", ".1f"), ("psnr_db", "PSNR dB", ".2f"), ("psnr_gain_over_bm3d_db", "- BM3D", "+.2f"),
        ("ssim", "SSIM", ".3f")), rows,
        [f"quality: {', '.join(i.name for i in images[:6])}{' ...' if len(images) > 6 else ''}; - : no trained weights"])
    return rows


def draw(rows: Rows, path: Path) -> None:
    """Quality against speed, the methods that none beats in both joined by a line. Untrained networks are a mark below."""
    from matplotlib.figure import Figure
    from nearflash.figures import save_figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    scored = sorted((r for r in rows if r["psnr_db"] is not None), key=lambda r: -r["megapixels_per_second"])
    front: list[dict[str, Any]] = []
    for r in scored:
        if not front or r["psnr_db"] > front[-1]["psnr_db"]:
            front.append(r)
    axes.plot([r["megapixels_per_second"] for r in front], [r["psnr_db"] for r in front], color="0.75", zorder=1,
              label="best at its speed")
    for kind, of_kind, colour in (("filters", FILTER_NAMES, "tab:blue"), ("networks", NETWORK_NAMES, "tab:orange")):
        some = [r for r in scored if r["method"] in of_kind]
        if some:
            axes.scatter([r["megapixels_per_second"] for r in some], [r["psnr_db"] for r in some], color=colour, zorder=2,
                         label=kind)
    for r in scored:
        axes.annotate(r["method"], (r["megapixels_per_second"], r["psnr_db"]), xytext=(6, 4), textcoords="offset points",
                      fontsize=9)
    for r in rows:
        if r["psnr_db"] is None:
            axes.axvline(r["megapixels_per_second"], color="0.8", linestyle=":")
            axes.text(r["megapixels_per_second"], 0.02, f" {r['method']} (no weights)", rotation=90, fontsize=8, va="bottom",
                      transform=axes.get_xaxis_transform())
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel("speed (megapixels per second)")
    axes.set_ylabel("PSNR on amplitude (dB)")
    axes.set_title("despeckling at a single look: quality against speed", fontsize=11, loc="left")
    axes.grid(True, which="major", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.despeckle", description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer methods, one run each, small images")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write the plot of quality against speed here (PNG, PDF, SVG)")
    parser.add_argument("--set", type=Path, help="folder of clean 8-bit images for the quality")
    parser.add_argument("--images", type=int, help="only the first so many images of --set")
    parser.add_argument("--methods", help="methods, separated by commas (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and BM3D (default: 2)")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE", help="weights of a network")
    args = parser.parse_args(argv)
    weights = {}
    for item in args.weights:
        name, equals, file = item.partition("=")
        if not equals or name not in NETWORK_NAMES:
            parser.error(f"--weights {item}: must be NAME=FILE, NAME of {', '.join(NETWORK_NAMES)}")
        weights[name] = Path(file)
    rows = measure(args.quick, load_images(args.set, args.images) if args.set else None,
                   args.methods.split(",") if args.methods else None, args.threads, weights)
    finish(args.json, {"despeckle": rows})
    if args.plot:
        draw(rows, args.plot)
        console.print(f"written to {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
