"""What a pixel's value means: amplitude, intensity, decibel or complex, to and from intensity.

Inside the package an image is **intensity**, float32 [H, W], >= 0, NaN where there is no data. Intensity from which
thermal noise was taken goes below 0 on dark ground: it gets an offset back while it is despeckled
(:class:`nearflash.sar.io.base.Scene`).
"""

from __future__ import annotations

import math

import numpy as np

from ..contract import ConfigError, DataError

__all__ = ["DOMAINS", "NEGATIVES", "UNKNOWN", "check_domain", "check_negatives", "check_scale", "from_intensity",
           "marked", "to_intensity"]

DOMAINS = ("amplitude", "intensity", "db", "complex")
UNKNOWN = "unknown"  # of a scene whose domain nobody has settled yet: nothing can be read from it as intensity
#: What becomes of negative intensity: kept as the noise it is, 0, missing, or an error.
NEGATIVES = ("keep", "clip", "mask", "error")
_LARGEST = float(np.finfo(np.float32).max)


def check_domain(domain: str, field: str = "domain", *, output: bool = False) -> str:
    """``domain`` if it is known (and can be written, for an output). Raises :class:`ConfigError`."""
    known = DOMAINS[:3] if output else DOMAINS
    if domain not in known:
        raise ConfigError(field, domain, f"must be one of {', '.join(known)}")
    return domain


def check_negatives(negatives: str) -> str:
    """``negatives`` if it is one of :data:`NEGATIVES`. Raises :class:`ConfigError`."""
    if negatives not in NEGATIVES:
        raise ConfigError("negatives", negatives, f"must be one of {', '.join(NEGATIVES)}")
    return negatives


def check_scale(db_scale: float) -> float:
    """The units per decibel of dB data. Raises :class:`ConfigError`."""
    if not (math.isfinite(db_scale) and db_scale > 0):
        raise ConfigError("db_scale", db_scale, "must be a finite number above 0 (10 for values of dB x 10)")
    return float(db_scale)


def to_intensity(values: np.ndarray, domain: str, *, missing: np.ndarray | None = None, db_scale: float = 1.0,
                 offset: float = 0.0, negatives: str = "error", field: str = "image") -> np.ndarray:
    """Intensity, float32 [H, W], NaN where a value is NaN or ``missing`` (bool [H, W]); a copy.

    ``values``: real [H, W]; for ``complex`` complex [H, W] or real [H, W, 2] (real, imaginary). In decibel, ``values`` are
    ``db_scale`` times 10 log10(intensity); -Inf dB is intensity 0. ``offset`` is added to intensity; what is negative after
    that becomes 0 ("keep", "clip"), NaN ("mask") or an error ("error"), by ``negatives``.

    Raises :class:`DataError` naming ``field`` for a wrong shape or type, an infinite value, a negative amplitude or
    intensity, and a value whose intensity float32 can't hold.
    """
    check_domain(domain)
    if domain == "complex":
        real, imaginary = _parts(values, field)
        absent = np.isnan(real) | np.isnan(imaginary)
    elif values.ndim != 2:
        raise DataError(f"{field} shape", tuple(values.shape), f"must be [H, W] for domain {domain}")
    elif values.dtype.kind not in "fiub":
        hint = "; complex data need domain complex" if values.dtype.kind == "c" else ""
        raise DataError(f"{field} type", str(values.dtype), f"must be a real number for domain {domain}{hint}")
    else:
        real, imaginary, absent = values, None, np.isnan(values)
    if missing is not None:
        absent |= missing
    with np.errstate(over="ignore", invalid="ignore"):
        result = real.astype(np.float32)
        if imaginary is not None:
            result = result * result + imaginary.astype(np.float32) ** 2
        elif domain == "amplitude":
            _refuse(result < 0, absent, values, field, "must be at least 0 for domain amplitude, or NaN or nodata; negative "
                    "values are decibel (domain db) or intensity after noise removal (domain intensity)")
            result *= result
        elif domain == "db":
            result *= np.float32(math.log(10) / 10 / db_scale)
            np.exp(result, out=result)
        else:
            result += np.float32(offset)
            below = (result < 0) & np.isfinite(result)
            if negatives == "error":
                _refuse(result < 0, absent, values, field, "must be at least 0 for domain intensity, or NaN or nodata; "
                        "--negatives keep, clip or mask accepts it as noise")
            elif negatives == "mask":
                absent |= below
            result[below] = 0
    result[absent] = np.nan
    _refuse(np.isinf(result), absent, values, field,
            f"must be finite, with an intensity of at most {_LARGEST:.4g}, or NaN or nodata")
    return result


def from_intensity(intensity: np.ndarray, domain: str, *, db_scale: float = 1.0) -> np.ndarray:
    """Intensity to ``domain`` (amplitude, intensity or db), float32, a copy; NaN stays NaN.

    Intensity 0 is -Inf dB. Negative intensity (noise) stays as it is in domain intensity and counts as 0 in the others.
    """
    check_domain(domain, output=True)
    if domain == "intensity":
        return intensity.astype(np.float32)
    intensity = np.maximum(intensity, np.float32(0))
    if domain == "amplitude":
        return np.sqrt(intensity, dtype=np.float32)
    with np.errstate(divide="ignore"):
        return np.log10(intensity, dtype=np.float32) * np.float32(10 * db_scale)


def marked(values: np.ndarray, *marks: float | None) -> np.ndarray:
    """Which of ``values`` (real [H, W], complex [H, W] or real [H, W, 2]) are one of ``marks``, bool [H, W]; NaN is none.

    Compared in the values' own type: a float32 file's -3.4e38 is not the float64 that its tag says. Of complex values the
    real part is compared, as in GDAL, where the imaginary part is 0 or the mark too.
    """
    real, *imaginary = _parts(values, "values") if values.ndim == 3 or values.dtype.kind == "c" else (values,)
    result = np.zeros(real.shape, bool)
    for mark in marks:
        if mark is not None:
            with np.errstate(over="ignore"):
                value = values.real.dtype.type(mark) if real.dtype.kind == "f" else mark
            here = real == value
            for part in imaginary:
                here &= (part == 0) | (part == value)
            result |= here
    return result


def _parts(values: np.ndarray, field: str) -> tuple[np.ndarray, np.ndarray]:
    if values.dtype.kind == "c" and values.ndim == 2:
        return values.real, values.imag
    if values.dtype.kind in "fiu" and values.ndim == 3 and values.shape[2] == 2:
        return values[..., 0], values[..., 1]
    raise DataError(f"{field} shape and type", f"{tuple(values.shape)} {values.dtype}",
                    "must be complex [H, W] or real [H, W, 2] for domain complex")


def _refuse(bad: np.ndarray, missing: np.ndarray, values: np.ndarray, field: str, limit: str) -> None:
    bad = bad & ~missing
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = values[row, column]
        raise DataError(f"{field} row {row} column {column}", value.tolist(), limit)
