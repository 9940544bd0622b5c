"""What a pixel's value means: amplitude, intensity, decibel or complex, to and from intensity.

Inside the package an image is **intensity**, float32 [H, W], >= 0, NaN where there is no data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..contract import ConfigError, DataError

__all__ = ["DOMAINS", "check_domain", "check_scale", "from_intensity", "to_intensity"]

DOMAINS = ("amplitude", "intensity", "db", "complex")
_LARGEST = float(np.finfo(np.float32).max)


def check_domain(domain: str, field: str = "domain", *, output: bool = False) -> str:
    """``domain`` if it is known (and can be written, for an output). Raises :class:`ConfigError`."""
    known = DOMAINS[:3] if output else DOMAINS
    if domain not in known:
        raise ConfigError(field, domain, f"must be one of {', '.join(known)}")
    return domain


def check_scale(db_scale: float) -> float:
    """The units per decibel of dB data. Raises :class:`ConfigError`."""
    if not (math.isfinite(db_scale) and db_scale > 0):
        raise ConfigError("db_scale", db_scale, "must be a finite number above 0 (10 for values of dB x 10)")
    return float(db_scale)


def to_intensity(values: np.ndarray, domain: str, *, nodata: float | None = None, db_scale: float = 1.0,
                 field: str = "image") -> np.ndarray:
    """Intensity, float32 [H, W], NaN where a value is NaN or equals ``nodata``; a copy.

    ``values``: real [H, W]; for ``complex`` complex [H, W] or real [H, W, 2] (real, imaginary). In decibel, ``values`` are
    ``db_scale`` times 10 log10(intensity); -Inf dB is intensity 0.

    Raises :class:`DataError` naming ``field`` for a wrong shape or type, an infinite value, a negative amplitude or
    intensity, and a value whose intensity float32 can't hold.
    """
    check_domain(domain)
    if domain == "complex":
        real, imaginary = _parts(values, field)
        missing = np.isnan(real) | np.isnan(imaginary)
        if nodata is not None:
            # A complex nodata value is a real number: GDAL compares the real part, and fills have no imaginary part
            missing |= (real == nodata) & ((imaginary == 0) | (imaginary == nodata))
        real, imaginary = real.astype(np.float32), imaginary.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            result = real * real + imaginary * imaginary
    else:
        if values.ndim != 2:
            raise DataError(f"{field} shape", tuple(values.shape), f"must be [H, W] for domain {domain}")
        if values.dtype.kind not in "fiub":
            hint = "; complex data need domain complex" if values.dtype.kind == "c" else ""
            raise DataError(f"{field} type", str(values.dtype), f"must be a real number for domain {domain}{hint}")
        missing = np.isnan(values)
        if nodata is not None:
            # Compared in the file's own type: a float32 file's -3.4e38 is not the float64 its tag says
            missing |= values == _in_type(nodata, values.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            result = values.astype(np.float32)
            if domain != "db":
                _refuse(result < 0, missing, values, field, f"must be at least 0 for domain {domain}, or NaN or nodata")
            if domain == "amplitude":
                result *= result
            elif domain == "db":
                result *= np.float32(math.log(10) / 10 / db_scale)
                np.exp(result, out=result)
    result[missing] = np.nan
    _refuse(np.isinf(result), missing, values, field,
            f"must be finite, with an intensity of at most {_LARGEST:.4g}, or NaN or nodata")
    return result


def from_intensity(intensity: np.ndarray, domain: str, *, db_scale: float = 1.0) -> np.ndarray:
    """Intensity to ``domain`` (amplitude, intensity or db), float32, a copy; intensity 0 is -Inf dB. NaN stays NaN."""
    check_domain(domain, output=True)
    if domain == "intensity":
        return intensity.astype(np.float32)
    if domain == "amplitude":
        return np.sqrt(intensity, dtype=np.float32)
    with np.errstate(divide="ignore"):
        return np.log10(intensity, dtype=np.float32) * np.float32(10 * db_scale)


def _parts(values: np.ndarray, field: str) -> tuple[np.ndarray, np.ndarray]:
    if values.dtype.kind == "c" and values.ndim == 2:
        return values.real, values.imag
    if values.dtype.kind in "fiu" and values.ndim == 3 and values.shape[2] == 2:
        return values[..., 0], values[..., 1]
    raise DataError(f"{field} shape and type", f"{tuple(values.shape)} {values.dtype}",
                    "must be complex [H, W] or real [H, W, 2] for domain complex")


def _in_type(nodata: float, dtype: np.dtype) -> Any:
    """``nodata`` as the nearest value of ``dtype``, or as it is where ``dtype`` can't hold it (no pixel is equal then)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(nodata)
    return nodata


def _refuse(bad: np.ndarray, missing: np.ndarray, values: np.ndarray, field: str, limit: str) -> None:
    bad = bad & ~missing
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = values[row, column]
        raise DataError(f"{field} row {row} column {column}", value.tolist(), limit)
