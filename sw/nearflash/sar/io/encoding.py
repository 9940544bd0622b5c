"""Which values an output gets: its domain, type, nodata and scale, checked before hours of work."""

from __future__ import annotations

import math

import numpy as np

from ...contract import ConfigError
from ..domain import check_domain, from_intensity
from ..statistics import sample_places
from .base import Encoding, Scene, output_type

__all__ = ["check_out_scale", "plan_encoding"]

FEWEST_STEPS = 8  # of a whole number type between the 5th and 95th percentile of the values: fewer crush them
CLIPPED = 0.01  # largest share of the values beyond the type's limits
HEADROOM = 4.0  # times the largest sampled value that a scale found here leaves room for
HEADROOM_DB = 1.5  # the same for decibel, of what lies between the lowest and the highest


def check_out_scale(scale: float | str | None) -> float | str | None:
    """``scale`` if it is None, "auto" or a finite number above 0. Raises :class:`ConfigError`."""
    if scale is None or scale == "auto":
        return scale
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError("out_scale", scale, "must be auto, or a finite number above 0")
    return value


def plan_encoding(scene: Scene, domain: str | None, dtype: str | None, scale: float | str | None = None) -> Encoding:
    """How intensity made of ``scene`` is written. ``domain``: default the scene's, amplitude for complex; ``dtype``: default
    float32; ``scale``: None keeps a declared scale, "auto" finds one that uses the type's range.

    Raises :class:`ConfigError` for unknown ones, and for a whole number type that would crush the values.
    """
    info, origin = scene.info, scene.origin
    own = "amplitude" if info.domain == "complex" else info.domain
    domain = check_domain(domain or own, "out_domain", output=True)
    kind = output_type(dtype or "float32")
    scale = check_out_scale(scale)
    scales = origin.scales if domain == info.domain and scale is None else ()
    offsets = origin.offsets if scales else ()
    if scale is not None:
        if kind.kind == "f":
            raise ConfigError("out_scale", scale, f"has no use with out_dtype {kind}: give a whole number type")
        number, offset = _fit(_sample(scene, domain), kind, domain) if scale == "auto" else (float(scale), 0.0)
        scales, offsets = (number,) * scene.bands, (offset,) * scene.bands
    mark = info.mark if info.nodata is None else info.nodata
    nodata = None if origin.mask else _fitting(mark, own, domain, kind)
    if origin.alpha and kind.kind == "f":
        nodata = math.nan  # alpha masks pixels of whole numbers alone
    encoding = Encoding(domain, kind, nodata, info.db_scale, scales, offsets, origin.mask)
    if kind.kind in "iu" and not (domain == own and kind == info.dtype):
        _refuse_crushing(scene, encoding)
    return encoding


def _sample(scene: Scene, domain: str) -> np.ndarray:
    """Values of ``domain`` at the sampled places of all bands, finite."""
    parts = []
    for band in range(scene.bands):
        for rows, columns in sample_places(scene.shape):
            intensity = scene.read(rows, band) - scene.offset(rows, band)
            parts.append(from_intensity(intensity[:, columns], domain, db_scale=scene.info.db_scale).ravel())
    values = np.concatenate(parts)
    return values[np.isfinite(values)]


def _fit(values: np.ndarray, dtype: np.dtype, domain: str) -> tuple[float, float]:
    """(scale, offset) by which ``values`` of ``domain`` and more fit into ``dtype``."""
    limits = np.iinfo(dtype)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if domain != "db" and (low >= 0 or limits.min < 0):
        return _round_up(HEADROOM * (max(abs(low), abs(high)) or 1.0) / limits.max), 0.0
    span = max(high - low, 1.0)
    scale = _round_up(HEADROOM_DB * span / (limits.max - limits.min))
    return scale, math.floor((low + high) / 2 - scale * (limits.max + limits.min) / 2)


def _round_up(number: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below ``number``."""
    power = 10.0 ** math.floor(math.log10(number))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= number * (1 - 1e-9))


def _fitting(nodata: float | None, own: str, domain: str, dtype: np.dtype) -> float | None:
    """The output's nodata: the input's where the output can hold it."""
    if nodata is None:
        return None
    if dtype.kind == "f":
        # An intensity of 0 is nothing, 0 dB is a common value
        return math.nan if nodata == 0 and domain == "db" != own else nodata
    limits = np.iinfo(dtype)
    if math.isfinite(nodata) and limits.min <= nodata <= limits.max and nodata == int(nodata):
        return nodata
    return float(limits.min)


def _refuse_crushing(scene: Scene, encoding: Encoding) -> None:
    values = _sample(scene, encoding.domain)
    if not len(values):
        return
    scale, offset = (encoding.scales[0], encoding.offsets[0]) if encoding.scales else (1.0, 0.0)
    limits = np.iinfo(encoding.dtype)
    stored = (values.astype(np.float64) - offset) / scale
    low, high = np.percentile(stored, [5, 95])
    beyond = float(np.mean((stored < limits.min - 0.5) | (stored > limits.max + 0.5)))
    steps = min(high, limits.max) - max(low, limits.min)
    if high > low and (steps < FEWEST_STEPS or beyond > CLIPPED):
        worst = f"{beyond:.0%} of them beyond its limits" if beyond > CLIPPED else f"{max(steps, 0):.2g} steps"
        first, last = low * scale + offset, high * scale + offset
        raise ConfigError("out_dtype", str(encoding.dtype), f"would crush the {encoding.domain} values of "
                          f"{scene.info.path}, mostly {first:.3g} to {last:.3g}: {worst}. Give "
                          "--out-scale auto (a scale tag in a GeoTIFF), another --out-domain or a float type")
