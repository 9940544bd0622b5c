"""An array in memory as a scene, despeckled as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import ConfigError, DataError
from .domain import UNKNOWN, check_domain, check_scale
from .io.base import Encoding, Scene, SceneInfo, Writer
from .methods import Method
from .scene import check_looks, despeckle_stream, require_valid
from .settle import check_borders, settle
from .statistics import SceneStatistics
from .tiles import TILE

__all__ = ["Options", "check_looks_array", "despeckle_array", "despeckle_settled", "result_type"]

MOST_LEVELS = 8  # of looks that an array of looks is interpolated between
LEVEL_STEP = 1.3  # between them, where there are not that many


@dataclass(frozen=True)
class Options:
    """What is wanted of an array; the fields are arguments of :func:`nearflash.sar.despeckle`. Raises
    :class:`ConfigError` for settings that no array could have."""

    method: Method
    looks: float | str | np.ndarray = "auto"
    domain: str | None = None
    out_domain: str | None = None
    tile: int = TILE
    nodata: float | None = None
    db_scale: float = 1.0
    match_mean: str = "none"
    borders: str = "auto"
    negatives: str = "keep"

    def __post_init__(self) -> None:
        check_scale(self.db_scale)
        check_borders(self.borders)
        if self.domain is not None:
            check_domain(self.domain)
        if self.out_domain is not None:
            check_domain(self.out_domain, "out_domain", output=True)
        check_looks_array(self.looks)


class ArrayScene(Scene):
    """Real or complex [N, H, W], or real [N, H, W, 2], N planes being bands; ``missing``: bool [N, H, W] or None."""

    def __init__(self, planes: np.ndarray, options: Options, missing: np.ndarray | None = None, name: str = "image",
                 words: tuple[str, ...] = (), fills: tuple[float, ...] = ()):
        self.planes, self.missing = planes, missing
        shape = planes.shape[1], planes.shape[2]
        self.info = SceneInfo(Path(name), shape, len(planes), options.domain or UNKNOWN, str(planes.dtype), options.nodata,
                              options.db_scale, words=words, fills=fills)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.planes[band, rows]

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        values, missing = super().read_values(rows, band)
        return values, missing if self.missing is None else missing | self.missing[band, rows]

    def close(self) -> None:
        """The array stays the caller's."""


class _ArrayWriter(Writer):
    def __init__(self, shape: tuple[int, int]):
        self.intensity = np.empty(shape, np.float32)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.intensity[row : row + len(intensity)] = intensity


def check_looks_array(looks: float | str | np.ndarray) -> None:
    """Raises :class:`ConfigError` unless ``looks`` is "auto", a number above 0, or an array of such."""
    if not isinstance(looks, np.ndarray):
        check_looks(looks)
    elif looks.dtype.kind not in "fiu" or not looks.size or not (np.isfinite(looks) & (looks > 0)).all():
        raise ConfigError("looks", f"array {looks.shape} {looks.dtype}", "must be finite numbers above 0")


def result_type(dtype: np.dtype) -> np.dtype:
    """Of an array's despeckled image: float64 for float64, else float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def despeckle_array(planes: np.ndarray, options: Options, missing: np.ndarray | None = None, name: str = "image",
                    words: tuple[str, ...] = (), fills: tuple[float, ...] = ()) -> np.ndarray:
    """Planes [N, H, W] (or [N, H, W, 2] for pairs) despeckled one by one, [N, H, W]. ``words``: what the array says of its
    values; ``fills``: more values that mark missing pixels. Raises what :func:`nearflash.sar.despeckle` does."""
    scene = ArrayScene(planes, options, missing, name, words, fills)
    settle(scene, options.domain, borders=options.borders, negatives=options.negatives)
    for note in scene.info.notes:
        warnings.warn(f"{name}: {note}", stacklevel=4)
    looks = options.looks
    if isinstance(looks, np.ndarray):
        try:
            looks = np.broadcast_to(looks, planes.shape[:3])
        except ValueError as e:
            raise DataError("looks shape", looks.shape, f"must fit the image's, {planes.shape[:3]}") from e
    return despeckle_settled(scene, options, looks)


def despeckle_settled(scene: ArrayScene, options: Options, looks: float | str | np.ndarray,
                      facts: SceneStatistics | None = None, *, may_be_empty: bool = False) -> np.ndarray:
    """Every plane of a scene whose domain is settled, as an array of the result's type [N, H, W]; ``looks``: for all, or by
    pixel [N, H, W]. Missing pixels keep their value, be it none of the output's domain: NaN, or what marks them."""
    info = scene.info
    domain = options.out_domain or ("amplitude" if info.domain == "complex" else info.domain)
    dtype = result_type(np.dtype(info.dtype))
    real = scene.planes.ndim == 3 and scene.planes.dtype.kind != "c"
    nodata = info.mark if info.nodata is None else info.nodata
    encoding = Encoding(domain, dtype, nodata if real else None, options.db_scale)
    result = np.empty(scene.planes.shape[:3], dtype)
    reports = []
    for band in range(scene.bands):
        def run(level: float | str, plane: int = band) -> np.ndarray:
            writer = _ArrayWriter(scene.shape)
            reports.append(despeckle_stream(scene, writer, options.method, level, tile=options.tile, band=plane,
                                            match_mean=options.match_mean, facts=facts))
            return writer.intensity

        intensity = _by_looks(run, looks[band]) if isinstance(looks, np.ndarray) else run(looks)
        result[band] = encoding.encode(intensity, info.name(band) or str(info.path))
        if real and scene.planes.dtype.kind == "f":
            missing = np.isnan(intensity)
            result[band][missing] = scene.planes[band][missing]
    if not may_be_empty:
        require_valid(reports, str(info.path))
    return result


def _by_looks(run: Callable[[float], np.ndarray], looks: np.ndarray) -> np.ndarray:
    """Intensity [H, W] made by ``run`` at several numbers of looks, and between them linear in their logarithm."""
    levels = np.unique(looks)
    if len(levels) > MOST_LEVELS:
        low, high = np.log(levels[0]), np.log(levels[-1])
        levels = np.exp(np.linspace(low, high, min(MOST_LEVELS, 2 + int((high - low) / np.log(LEVEL_STEP)))))
    images = [run(float(level)) for level in levels]
    result = images[0]
    logs = np.log(looks)
    for before, after, low, high in zip(images, images[1:], np.log(levels), np.log(levels[1:]), strict=False):
        share = np.clip((logs - low) / (high - low), 0, 1).astype(np.float32)
        result = np.where(share > 0, before + share * (after - before), result)
    return result
