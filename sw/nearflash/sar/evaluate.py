"""The score of a despeckler on clean 8-bit images with simulated speckle.

Protocol ``project``: amplitude a = g / 255 of the gray value g, data range 1; intensity a^2 times speckle of unit mean,
drawn by ``numpy.random.default_rng([seed, k])`` for image k of the sorted folder, so that any image and seed can be repeated
alone; the method gets that intensity as it is (its scale is the one networks are trained at), and the square root of its
answer, clipped to [0, 1], is compared with a. The input is not clipped. Scores are means over all images and seeds of
per-image PSNR and SSIM.

Protocol ``published`` differs in a = (g + 1) / 256, as in M. V. Perera et al., "Transformer-based SAR image despeckling",
IGARSS 2022, where no pixel is without speckle.

The set Set12 (12 images named 01 to 12) also gets its score without image 04, part of which is in BSDS500, and that of the
first ten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import ConfigError, DataError
from .methods import Method, apply_method
from .metrics import SSIM_SIZE, psnr, ssim
from .speckle import SystemResponse, speckled

__all__ = ["CORRELATED", "PROTOCOLS", "CleanImage", "evaluate", "load_images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
# Offset and divisor of the gray value
PROTOCOLS: Mapping[str, tuple[int, int]] = {"project": (0, 255), "published": (1, 256)}
# About a spaceborne single-look complex image: sampled 1.25 times denser than its band, Hamming-like weighting
CORRELATED = SystemResponse(bandwidth=(0.8, 0.8), taper=(0.75, 0.75))


@dataclass(frozen=True)
class CleanImage:
    """A clean image: its file name and gray values, uint8 [H, W]."""

    name: str
    gray: np.ndarray


def load_images(folder: str | Path, count: int | None = None) -> list[CleanImage]:
    """The first ``count`` (default all) PNG, JPEG and BMP images of ``folder`` by name; RGB becomes gray as in Pillow's "L".

    Raises:
        DataError: not a folder, no images, an image that is damaged, not of 8 bits, or too small for SSIM.
    """
    from PIL import Image

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("set", str(folder), "must be a folder of clean 8-bit images")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)[:count]
    if not paths:
        raise DataError("set", str(folder), f"must hold at least one image ({', '.join(SUFFIXES)})")
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                mode = image.mode
                gray = np.asarray(image.convert("L"))
        except (OSError, SyntaxError, ValueError) as e:  # Pillow raises each of them for damaged files
            raise DataError("image", str(path), f"can't be read: {e}") from e
        if mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise DataError(f"{path} mode", mode, "must be 8-bit grayscale or RGB")
        if min(gray.shape) < SSIM_SIZE:
            raise DataError(f"{path} size", gray.shape, f"must be at least {SSIM_SIZE} x {SSIM_SIZE}")
        images.append(CleanImage(path.name, gray))
    return images


def evaluate(images: list[CleanImage], method: Method, looks: float, seeds: int = 10, *, protocol: str = "project",
             response: SystemResponse | None = None,
             note: Callable[[int, int, str], None] = lambda done, total, name: None) -> dict[str, Any]:
    """Scores of ``method`` on ``images`` with speckle of ``looks`` looks and seeds 0 to ``seeds`` - 1, ready for JSON.

    ``response``: correlates the speckle (looks must be whole then), for example :data:`CORRELATED`. ``note`` hears how many
    of how many runs are done. Speed counts the method alone, after a first run on a small piece (on a fabric without one).

    Raises:
        ConfigError, DataError: no images, seeds below 1, unknown protocol, looks out of range.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError("protocol", protocol, f"must be one of {', '.join(PROTOCOLS)}")
    if seeds < 1:
        raise ConfigError("seeds", seeds, "must be at least 1")
    if not images:
        raise DataError("images", 0, "must be at least one")
    offset, divisor = PROTOCOLS[protocol]
    scores = np.zeros((len(images), seeds, 4))  # PSNR, SSIM, and both of the noisy image
    if method.offloaded is None:  # what a fabric takes does not depend on what it did before
        apply_method(method, images[0].gray[:64, :64] / np.float32(255), looks)
    pixels, seconds = 0, 0.0
    for k, image in enumerate(images):
        amplitude = (image.gray.astype(np.float64) + offset) / divisor
        for seed in range(seeds):
            noisy = speckled(amplitude**2, looks, np.random.default_rng([seed, k]), response)
            start = time.perf_counter()
            out = apply_method(method, noisy, looks)
            seconds += time.perf_counter() - start
            pixels += noisy.size
            clean_in, clean_out = np.sqrt(noisy, dtype=np.float64), np.clip(np.sqrt(out, dtype=np.float64), 0, 1)
            scores[k, seed] = (psnr(amplitude, clean_out), ssim(amplitude, clean_out),
                               psnr(amplitude, clean_in), ssim(amplitude, clean_in))
            note(k * seeds + seed + 1, len(images) * seeds, image.name)

    mean = scores.mean((0, 1))
    each = scores.mean(1)
    result: dict[str, Any] = {
        "method": method.name, "looks": looks, "seeds": seeds, "protocol": protocol,
        "speckle": "white" if response is None else "correlated", "images_count": len(images),
        "psnr_db": mean[0], "ssim": mean[1], "noisy_psnr_db": mean[2], "noisy_ssim": mean[3], "dg_db": mean[0] - mean[2],
        # How far the mean over the images moves from seed to seed
        "psnr_db_seed_std": float(scores[:, :, 0].mean(0).std()),
        **_set12(images, each),
        "megapixels_per_second": pixels / 1e6 / seconds, "method_seconds": seconds, **method.details,
        "images": [{"name": i.name, "psnr_db": e[0], "ssim": e[1], "noisy_psnr_db": e[2], "noisy_ssim": e[3],
                    "dg_db": e[0] - e[2]} for i, e in zip(images, each.tolist(), strict=True)],
    }
    return {k: float(v) if isinstance(v, np.floating) else v for k, v in result.items()}


def _set12(images: list[CleanImage], each: np.ndarray) -> dict[str, float]:
    """More means when the images are Set12's."""
    if [Path(i.name).stem for i in images] != [f"{k:02}" for k in range(1, 13)]:
        return {}
    without = np.delete(each, 3, axis=0).mean(0)
    first = each[:10].mean(0)
    return {"psnr_db_without_04": float(without[0]), "ssim_without_04": float(without[1]),
            "psnr_db_first_10": float(first[0]), "ssim_first_10": float(first[1])}
