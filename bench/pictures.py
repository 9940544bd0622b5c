"""The pictures of docs/despeckling.md: simulated scenes before and after, and what was taken away.

``python -m bench.pictures docs/_static``. The scenes are this file's own: fields of different crops, a river, roads, a town
of scatterers as a radar sees it, ships. One is a single-look complex image's intensity with its correlated speckle, the
other a coast with ships in four looks of white speckle. Shown are amplitudes, the ratio of intensities beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nearflash.sar import despeckle
from nearflash.sar.evaluate import CORRELATED
from nearflash.sar.methods import NETWORK_NAMES, Method, load_method
from nearflash.sar.speckle import speckled
from nearflash.sar.training.cities import city_echoes
from nearflash.whole import whole_file
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from .report import console

__all__ = ["land", "main", "sea"]

SIDE = 288
GAP = 6  # pixels between panels
BRIGHTEST = 97  # percentile of the amplitude before: white
DARKEST_RATIO, BRIGHTEST_RATIO = 0.0, 3.0  # of intensities, as grey
QUALITY = 88


def land(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intensity [SIDE, SIDE] of fields, a wood, a river and roads, and a town's complex echoes."""
    places = np.stack(np.mgrid[:SIDE, :SIDE], axis=-1).reshape(-1, 2) @ np.array([[0.9, 0.45], [-0.45, 0.9]])
    seeds = places[rng.choice(len(places), 55, replace=False)]
    fields = cKDTree(seeds).query(places)[1].reshape(SIDE, SIDE)
    decibel = rng.normal(0, 3.0, len(seeds))[fields]
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    wood = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 18) > 0.012
    decibel = np.where(wood, 2 + 9 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.0), decibel)
    for slope, offset in ((0.35, 40.0), (-1.7, 460.0)):
        decibel[np.abs(y - slope * x - offset) < 1.6 * np.hypot(1, slope)] = -9
    middle = 150 + 45 * np.sin(y / 48) + 14 * np.sin(y / 17 + 1)
    decibel[np.abs(x - middle) < 9 + 4 * np.sin(y / 60)] = -15
    town = city_echoes(rng, SIDE, CORRELATED) * np.exp(-(((y - 90) ** 2 + (x - 235) ** 2) / 2 / 42**2) ** 2)
    return 0.16 * 10 ** (decibel / 10), town.astype(np.complex64)


def sea(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intensity of a coast with swell before it, and the echoes of ships."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    swell = 0.8 * np.sin((x + 0.6 * y) / 5.0)
    coast = 170 + 60 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 25) / 0.01 + 0.25 * y
    ground = 1.5 + 40 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 7)
    decibel = np.where(x > coast, ground, -9 + swell)
    ships = np.zeros((SIDE, SIDE), np.complex64)
    for row, column in rng.integers(20, (SIDE - 20, 110), (9, 2)):
        length, angle = rng.integers(2, 7), rng.uniform(0, np.pi)
        for step in range(length):
            at = int(row + step * np.sin(angle)), int(column + step * np.cos(angle))
            ships[at] += 1.2 * (1 + rng.pareto(1.5)) * np.exp(2j * np.pi * rng.random())
    transfer = CORRELATED.transfer((SIDE, SIDE))
    echoes = np.fft.ifft2(np.fft.fft2(ships) * (transfer / transfer.mean()))
    return 0.16 * 10 ** (decibel / 10), echoes.astype(np.complex64)


def panels(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Before, after and ratio beside each other, uint8."""
    white = float(np.percentile(np.sqrt(noisy), BRIGHTEST))
    grey = [np.sqrt(i) / white for i in (noisy, clean)]
    grey.append((noisy / clean - DARKEST_RATIO) / (BRIGHTEST_RATIO - DARKEST_RATIO))
    gap = np.ones((SIDE, GAP))
    row = np.concatenate([grey[0], gap, grey[1], gap, grey[2]], axis=1)
    return np.rint(255 * np.clip(row, 0, 1)).astype(np.uint8)


def draw(folder: Path, method: Method) -> list[Path]:
    """Write ``despeckled_slc.jpg`` and ``despeckled_grd.jpg``."""
    written = []
    for name, looks, (ground, echoes), response in (
            ("despeckled_slc.jpg", 1, land(np.random.default_rng(21)), CORRELATED),
            ("despeckled_grd.jpg", 4, sea(np.random.default_rng(5)), None)):
        noisy = speckled(ground, looks, np.random.default_rng(looks), response, echoes)
        clean = despeckle(noisy, domain="intensity", looks=looks, method=method)
        with whole_file(folder / name) as part, part.open("wb") as file:
            Image.fromarray(panels(noisy, clean)).save(file, "JPEG", quality=QUALITY)
        written.append(folder / name)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.pictures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--method", default="base", choices=NETWORK_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        parser.error(f"{args.folder} must be a folder")
    for path in draw(args.folder, load_method(args.method, checkpoint=args.checkpoint)):
        console.print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
