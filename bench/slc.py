"""What real and imaginary part are worth at inference: a complex image despeckled by its intensity, by its halves, whitened.

``python -m bench.slc bsds500/val --real real_sar --json slc.json``. Three ways to an estimate:

- *intensity*: what ``nearflash despeckle`` does, |z|^2 of one look;
- *halves*: the squares of either part, of half a look each, despeckled apart and averaged, as MERLIN does (E. Dalsasso, L.
  Denis, F. Tupin, "As if by magic", TGRS 2022);
- *whitened*: the intensity of the image after its spectrum has been made flat, so that neighbours' speckle is independent
  (A. Lapini et al., "Blind speckle decorrelation for SAR image despeckling", TGRS 2014).

PSNR is on photographs, white speckle and that of a spaceborne system which filters ground and speckle alike. Of the real
images the ratio image in their most even windows, and what no ratio of an image to its own estimate can show: the ratio of
one half to the estimate from the other, whose mean is 1 where the estimate is right on average, whatever the texture.
Where no window is even, also the ratio image of the estimate that errs least on texture that no pixel shares with another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.fft
from nearflash.sar.evaluate import CORRELATED, CleanImage, load_images
from nearflash.sar.io import read_complex
from nearflash.sar.methods import METHOD_NAMES, Method, apply_method, load_method
from nearflash.sar.metrics import no_reference_report, psnr
from nearflash.sar.statistics import MEDIAN_AMPLITUDE
from nearflash.sar.training.observed import HALF_LOOK
from scipy.ndimage import gaussian_filter1d, uniform_filter
from scipy.special import gammaln

from .radiometry import COMPLEX, find
from .report import Rows, finish, show_rows

__all__ = ["main", "measure"]

CROP = 320  # pixels of a photograph
ENVELOPE = 9  # pixels over which an image's brightness is taken out before its spectrum is looked at
SMOOTH = 1 / 32  # of the spectrum, sigma
FLOOR = 0.05  # of its mean: what lies outside of the band is left there
COLUMNS = (("what", "what", ""), ("case", "case", ""), ("intensity", "intensity", ".3f"), ("halves", "halves", ".3f"),
           ("whitened", "whitened", ".3f"))


def estimates(image: np.ndarray, method: Method) -> dict[str, np.ndarray]:
    intensity = np.abs(image) ** 2
    scale = float(np.median(intensity)) / MEDIAN_AMPLITUDE**2
    white = whitened(image)
    first, second = (of_half(part, scale, method) for part in (image.real, image.imag))
    return {"intensity": apply_method(method, intensity / scale, 1) * scale, "halves": (first + second) / 2,
            "whitened": apply_method(method, np.abs(white) ** 2 / scale, 1) * scale}


def of_half(part: np.ndarray, scale: float, method: Method) -> np.ndarray:
    """Intensity estimated from the real or imaginary part."""
    return apply_method(method, 2 * part**2 / scale, HALF_LOOK) * scale


def whitened(image: np.ndarray) -> np.ndarray:
    """``image`` with a flat spectrum along either axis, of the same mean intensity."""
    intensity = np.abs(image) ** 2
    even = image / np.sqrt(uniform_filter(intensity, ENVELOPE) + 1e-3 * intensity.mean())
    spectrum = scipy.fft.fft2(image)
    for axis in (0, 1):
        power = (np.abs(scipy.fft.fft(even, axis=axis)) ** 2).mean(1 - axis)
        power = gaussian_filter1d(power / power.mean(), SMOOTH * len(power), mode="wrap")
        gain = np.maximum(power, FLOOR) ** -0.5
        spectrum = spectrum * (gain[:, None] if axis == 0 else gain)
    white = scipy.fft.ifft2(spectrum)
    return white * np.sqrt(intensity.mean() / (np.abs(white) ** 2).mean())


def simulated(images: list[CleanImage], method: Method) -> Rows:
    found: dict[str, list[dict[str, float]]] = {"white": [], "correlated, ground filtered too": []}
    for k, photograph in enumerate(images):
        clean = photograph.gray[:CROP, :CROP] / 255.0
        rng = np.random.default_rng([3, k])
        white = clean * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)) / np.sqrt(2)
        seen = scipy.fft.ifft2(scipy.fft.fft2(white) * CORRELATED.transfer(clean.shape))
        for case, image in zip(found, (white, seen), strict=True):
            found[case].append({name: psnr(clean, np.clip(np.sqrt(out), 0, 1))
                                for name, out in estimates(image, method).items()})
    return [{"what": "PSNR (dB)", "case": f"{len(images)} photographs, {case}",
             **{name: float(np.mean([s[name] for s in scores])) for name in scores[0]}} for case, scores in found.items()]


def real(folders: Sequence[Path], method: Method) -> Iterator[dict[str, object]]:
    for name in COMPLEX:
        path = find(folders, f"slc/{name}")
        if path is None:
            yield {"what": "file missing", "case": name}
            continue
        image = read_complex(path)
        intensity = np.abs(image).astype(np.float64) ** 2
        # A whitened image is another image: its estimate's ratio is to itself
        before = {"intensity": intensity, "halves": intensity, "whitened": np.abs(whitened(image)) ** 2}
        reports = {way: no_reference_report(before[way], out, 1) for way, out in estimates(image, method).items()}
        for key, what in (("enl_in", "ENL in"), ("enl_out", "ENL out"), ("ratio_mean", "ratio mean"),
                          ("ratio_variance", "ratio variance x L"), ("mean_kept", "mean kept")):
            yield {"what": what, "case": name, **{way: report[key] for way, report in reports.items()}}
        for what, value in zip(("ratio mean of least squares", "ratio variance of least squares"),
                               least_squares_ratio(reports["intensity"]["enl_in"]) or (), strict=False):
            yield {"what": what, "case": name, "intensity": value}
        scale = float(np.median(intensity)) / MEDIAN_AMPLITUDE**2
        parts = image.real.astype(np.float64), image.imag.astype(np.float64)
        ratios = [2 * other**2 / of_half(part, scale, method) for part, other in (parts, parts[::-1])]
        yield {"what": "other half / estimate, mean", "case": name, "halves": float(np.mean(ratios))}


def least_squares_ratio(looks_in: float) -> tuple[float, float] | None:
    """Mean and variance of the ratio image of the amplitude that errs least on average, where brightness varies from pixel
    to pixel, independently: 1 and 1 only where it doesn't vary.

    Of an inverse gamma distribution of exponent a and speckle of one look: the intensity I has (a - 2) / a looks, the
    best amplitude is sqrt(b + I) gamma(a + 1/2) / gamma(a + 1), and I / (b + I) is beta distributed with 1 and a. None
    for ``looks_in`` of 1 and more.
    """
    if looks_in >= 1:
        return None
    a = 2 / (1 - looks_in)
    gain = np.exp(2 * (gammaln(a + 1) - gammaln(a + 0.5)))
    return gain / (1 + a), gain**2 * a / ((1 + a) ** 2 * (2 + a))


def measure(method: Method, images: list[CleanImage], folders: Sequence[Path] = ()) -> Rows:
    rows = simulated(images, method) + (list(real(folders, method)) if folders else [])
    show_rows(f"complex images, {method.name}", COLUMNS, rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.slc", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of clean 8-bit images that the network wasn't trained on")
    parser.add_argument("--method", default="base", choices=METHOD_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--images", type=int, default=6, help="how many photographs (default 6)")
    parser.add_argument("--real", type=Path, action="append", default=[], help="a folder of real scenes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images must be at least 1")
    method = load_method(args.method, checkpoint=args.checkpoint)
    finish(args.json, {"slc": measure(method, load_images(args.photographs, args.images), args.real)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
