"""Despeckling a scene of any size in little memory: rows stream in, overlapping tiles are filtered, rows stream out.

Guaranteed: the result depends on the scene, the method, the looks and the tile size only, not on how rows are batched in
files, and it is the same bits each time if the method's own arithmetic is. On a scene without missing pixels a method that
uses at most ``margin`` pixels of context, and the scene's own values at its edges, gives what it gives without tiles.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import ConfigError, DataError, ModelError
from .homogeneous import EvenWindows
from .io.base import Scene, SceneInfo, Writer
from .local_mean import REACH, keep_local_mean
from .looks import LooksEstimate
from .methods import Method, apply_method
from .missing import EVEN_RADIUS, fill_missing, interior_constants
from .statistics import SceneStatistics, survey
from .tiles import RAMP, TILE, lerp, plan_axis, ramp

__all__ = ["MATCHES", "StreamReport", "check_looks", "despeckle_stream", "looks_to_use", "require_valid",
           "settled"]

MATCHES = ("none", "local", "global")
LOOKS_WHEN_UNKNOWN = 1.0
CONTRADICTION = 1.5  # times beyond its bounds that an estimate must be to put a product's looks in doubt


@dataclass(frozen=True)
class StreamReport:
    """What one band's despeckling did. Means are of intensity over the valid pixels, less the scene's offset, None without
    any; ``enl_in`` and ``enl_out``: number of looks on the most even windows; ``gain``: the factor of match_mean "global"
    (1 without); ``looks_source``: given, product (it states them), estimated, or assumed (1: nothing to estimate from);
    ``looks_low`` and ``looks_high``: bounds of the image's own looks, None where there was nothing to estimate from or no
    need; ``looks_doubt``: in words where those contradict the looks used."""

    looks: float
    looks_source: str
    looks_low: float | None
    looks_high: float | None
    looks_doubt: str
    valid_pixels: int
    mean_in: float | None
    mean_out: float | None
    enl_in: float | None
    enl_out: float | None
    gain: float
    seconds: float


def check_looks(looks: float | str) -> float | None:
    """Looks as a number, None for "auto". Raises :class:`ConfigError`."""
    if looks == "auto":
        return None
    try:
        value = float(looks)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError("looks", looks, "must be a finite number above 0, or auto")
    return value


def despeckle_stream(scene: Scene, writer: Writer, method: Method, looks: float | str = "auto", *, tile: int = TILE,
                     band: int = 0, match_mean: str = "none", ratio: Writer | None = None,
                     scratch: Path | None = None, progress: Callable[[int, int], None] | None = None,
                     facts: SceneStatistics | None = None) -> StreamReport:
    """Despeckle one band of ``scene`` into ``writer``; memory grows with the width, not the height.

    ``tile``: pixels on a side of what the method sees at once, its margins included. ``match_mean``: "local" multiplies by
    a smooth gain that keeps the input's mean around each pixel (at most 10 % change; networks have had most of that already,
    :func:`~nearflash.sar.local_mean.keep_local_mean`), "global" by one gain that keeps the scene's mean, through a temporary
    file of 4 bytes a pixel in ``scratch`` (default: the system's folder for those).
    ``ratio``: gets the ratio image, input over output (1 where both are 0). ``progress``: called with (rows done, rows).
    ``facts``: of a larger scene that this one is a part of; default this one's.

    Raises :class:`DataError` for an unreadable scene, :class:`ConfigError` for impossible settings, :class:`ModelError` for
    a method that returns a wrong shape or non-finite values.
    """
    if match_mean not in MATCHES:
        raise ConfigError("match_mean", match_mean, f"must be one of {', '.join(MATCHES)}")
    given = check_looks(looks)
    began = time.perf_counter()
    # Also beside what the product says: it may be another product's, or multilooked since
    facts = facts or survey(scene, band, looks=given is None)
    used, source = looks_to_use(given, scene.info.looks, facts.estimate)
    run = _TileRunner(method, used, facts.scale if method.scene_scale else 1.0, facts.floor, match_mean == "local")
    totals = _Totals()
    rows, columns = scene.shape
    batches = _filter_rows(scene, band, run, tile, progress)
    if match_mean == "global":
        with tempfile.TemporaryFile(dir=scratch) as spool:
            for row, before, after in batches:
                totals.add(before, after, _offset(scene, row, len(before), band))
                spool.write(np.ascontiguousarray(after).data)
            spool.seek(0)
            gain = totals.sum_in / totals.sum_out if totals.sum_out > 0 else 1.0
            step = max(1, tile // 4)
            for row in range(0, rows, step):
                n = min(step, rows - row)
                after = np.frombuffer(spool.read(4 * n * columns), np.float32).reshape(n, columns) * np.float32(gain)
                before = scene.read(slice(row, row + n), band) if ratio else None
                _write(scene.info, writer, ratio, before, after, _offset(scene, row, n, band), row, band)
    else:
        gain = 1.0
        for row, before, after in batches:
            offset = _offset(scene, row, len(before), band)
            totals.add(before, after, offset)
            _write(scene.info, writer, ratio, before, after, offset, row, band)
    mean_in = (totals.sum_in - totals.sum_offset) / totals.pixels if totals.pixels else None
    mean_out = (gain * totals.sum_out - totals.sum_offset) / totals.pixels if totals.pixels else None
    estimate = facts.estimate
    low, high = (estimate.low, estimate.high) if estimate else (None, None)
    doubt = ""
    if source == "product" and estimate and not estimate.low / CONTRADICTION <= used <= estimate.high * CONTRADICTION:
        doubt = f"the product states {used:.3g} looks, the image has {estimate.low:.2g} to {estimate.high:.2g}"
    elif source == "estimated" and estimate and not estimate.even:
        doubt = f"hardly any even ground: {estimate.low:.2g} to {estimate.high:.2g} looks; --looks says otherwise"
    return StreamReport(used, source, low, high, doubt, totals.pixels, mean_in, mean_out, *totals.windows.looks(), gain,
                        time.perf_counter() - began)


def looks_to_use(given: float | None, stated: float | None, estimate: LooksEstimate | None) -> tuple[float, str]:
    """The looks to use and where they come from."""
    for value, source in ((given, "given"), (stated, "product"), (estimate.looks if estimate else None, "estimated")):
        if value is not None:
            return value, source
    return LOOKS_WHEN_UNKNOWN, "assumed"


def require_valid(reports: Iterable[StreamReport], name: str) -> None:
    """Raises :class:`DataError` naming ``name`` if no band of an image had a valid pixel."""
    if not any(r.valid_pixels for r in reports):
        raise DataError(name, "no valid pixel", "must have at least one pixel that is neither NaN nor nodata")


def _offset(scene: Scene, row: int, count: int, band: int) -> np.ndarray | float:
    return scene.offset(slice(row, row + count), band)


def _write(info: SceneInfo, writer: Writer, ratio: Writer | None, before: np.ndarray | None, after: np.ndarray,
           offset: np.ndarray | float, row: int, band: int) -> None:
    writer.write(after if np.ndim(offset) == 0 and offset == 0 else settled(info, after - offset, row), row, band)
    if ratio is not None and before is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio.write(np.where((before == 0) & (after == 0), np.float32(1), before / after), row, band)


def settled(info: SceneInfo, intensity: np.ndarray, row: int) -> np.ndarray:
    """Intensity less its offset, float32 [rows, W], its negative pixels treated as the scene's ``negatives`` says."""
    intensity = intensity.astype(np.float32)
    below = intensity < 0
    if info.negatives == "keep" or not below.any():
        return intensity
    if info.negatives == "error":
        i, j = (int(k) for k in np.argwhere(below)[0])
        raise DataError(f"{info.path} row {row + i} column {j}", float(intensity[i, j]), "is below the noise that was "
                        "subtracted: --negatives keep, clip or mask accepts it")
    intensity[below] = 0 if info.negatives == "clip" else np.nan
    return intensity


class _Totals:
    """Sums over the valid pixels, offsets included, and the offsets' own."""

    def __init__(self) -> None:
        self.pixels, self.sum_in, self.sum_out, self.sum_offset = 0, 0.0, 0.0, 0.0
        self.windows = EvenWindows()

    def add(self, before: np.ndarray, after: np.ndarray, offset: np.ndarray | float) -> None:
        valid = ~np.isnan(before)
        self.pixels += int(valid.sum())
        self.sum_in += float(before.sum(where=valid, dtype=np.float64))
        self.sum_out += float(after.sum(where=valid, dtype=np.float64))
        self.sum_offset += float(np.broadcast_to(offset, valid.shape).sum(where=valid, dtype=np.float64))
        self.windows.add(before, after)


@dataclass(frozen=True)
class _TileRunner:
    method: Method
    looks: float
    scale: float
    floor: float
    match_local: bool

    @property
    def margin(self) -> int:
        return max(self.method.margin, EVEN_RADIUS) + (REACH if self.match_local else 0)

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        """Intensity [H, W] despeckled; NaN stays NaN, a value among equal ones stays, tiles without one above 0 are not
        computed."""
        if not (tile > 0).any():
            return tile
        missing = np.isnan(tile)
        floor, scale = np.float32(self.floor), np.float32(self.scale)
        filled = fill_missing(tile)
        zero = filled == 0
        result = apply_method(self.method, np.where(zero, floor, filled) / scale, self.looks)
        if result.shape != tile.shape:
            raise ModelError(f"method {self.method.name} result", result.shape, f"must have the tile's shape {tile.shape}")
        result = np.maximum(result.astype(np.float32) * scale, np.float32(0))
        if not np.isfinite(result).all():
            raise ModelError(f"method {self.method.name} result", "NaN or Inf", "must be finite")
        if self.match_local:
            result = keep_local_mean(filled, result)
        result[zero & (result <= floor)] = 0
        even = interior_constants(tile)
        result[even] = tile[even]
        result[missing] = np.nan
        return result


def _filter_rows(scene: Scene, band: int, run: _TileRunner, tile: int,
                 progress: Callable[[int, int], None] | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first row, input, output) of consecutive rows that together are the scene."""
    rows, columns = scene.shape
    vertical = plan_axis(rows, tile, run.margin, run.method.multiple)
    horizontal = plan_axis(columns, tile, run.margin, run.method.multiple)
    fade = ramp()
    strip = np.empty((vertical.window, columns), np.float32)
    result = np.empty_like(strip)
    tail = np.empty((RAMP, columns), np.float32)  # the strip before, over the rows where this one fades in
    done = 0
    for k, start in enumerate(vertical.starts):
        known = 0 if k == 0 else vertical.starts[k - 1] + vertical.window - start
        if known:
            strip[:known] = strip[-known:].copy()
        strip[known:] = scene.read(slice(start + known, start + vertical.window), band)
        for j, left in enumerate(horizontal.starts):
            clean = run(strip[:, left : left + horizontal.window])
            if j == 0:
                result[:, : horizontal.window] = clean
            else:
                a = horizontal.ramps[j - 1]
                result[:, a : a + RAMP] = lerp(result[:, a : a + RAMP], clean[:, a - left : a - left + RAMP], fade)
                result[:, a + RAMP : left + horizontal.window] = clean[:, a - left + RAMP :]
            if progress is not None:
                share = (k + (j + 1) / len(horizontal.starts)) / len(vertical.starts)
                progress(int(rows * share), rows)
        if k:
            a = vertical.ramps[k - 1] - start
            result[a : a + RAMP] = lerp(tail, result[a : a + RAMP], fade[:, None])
        end = vertical.ramps[k] if k < len(vertical.ramps) else rows
        if k < len(vertical.ramps):
            tail[:] = result[end - start : end - start + RAMP]
        yield done, strip[done - start : end - start], result[done - start : end - start]
        done = end
    if progress is not None:
        progress(rows, rows)
