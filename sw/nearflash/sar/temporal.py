"""A stack of dates of one place: what all of them say of the ground, and what each adds to it.

The dates' mean is despeckled once. Each date divided by it is speckle about 1 and what has changed, an image with hardly a
structure in it, which a network despeckles better than the date itself; the result times the mean is the date's. Source: W.
Zhao, C.-A. Deledalle, L. Denis et al., "Ratio-based multitemporal SAR images denoising: RABASAR", TGRS 2019.

A scatterer that stands there on one date alone must neither appear on the others nor be taken for speckle on its own: in the
mean a date counts no more than a little above what the others show near by, and of each date's strong scatterers
(:mod:`nearflash.sar.scatterers`) those are kept that stand out of the date itself.

Everything is read by rows; of the mean a temporary file is kept, 4 bytes a pixel, beside the outputs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ..contract import ConfigError, DataError
from .files import FileResult, Job
from .homogeneous import EvenWindows
from .io import open_scene, open_writer
from .io.base import Scene, Writer
from .methods import NETWORK_NAMES, Method
from .missing import fill_missing
from .scatterers import REACH, bounded, ground_level, keep_strong
from .scene import StreamReport, check_looks, despeckle_stream, looks_to_use, require_valid, settled
from .statistics import survey

__all__ = ["MOST_LOOKS", "despeckle_dates"]

MOST_LOOKS = 50.0  # that a mean is taken to have: beyond that its ground varies more than its speckle
#: A date counts in the mean up to so many times the highest of the others within NEAR pixels. Of single-look speckle that
#: takes 0.4 % with three dates, 1 % with two.
ABOVE_OTHERS, NEAR = 1.5, 2
MARGIN = 3 * REACH  # rows around some of a date that say which of their pixels are strong scatterers


class _Mean(Scene):
    """The mean of some scenes, each no higher than the others near by allow; missing where all are."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        self.info = replace(scenes[0].info, path=Path("mean of the dates"), domain="intensity", dtype="float32", offset=0.0,
                            negatives="keep", looks=None)

    def read(self, rows: slice, band: int = 0) -> np.ndarray:
        first, second, of_first = self._highest(rows, band)
        total, count = 0.0, 0
        for k, scene in enumerate(self.scenes):
            values = scene.read(rows, band).astype(np.float64)
            others = np.where(of_first == k, second, first)
            there = np.isfinite(values)
            limit = np.where(np.isfinite(others), ABOVE_OTHERS * others, np.inf)
            total, count = total + np.where(there, np.minimum(values, limit), 0), count + there
        return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def _highest(self, rows: slice, band: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the scenes' highest values near by the highest and the second, -inf for none, and whose the highest is."""
        from scipy.ndimage import maximum_filter

        wide = slice(max(0, rows.start - NEAR), min(self.shape[0], rows.stop + NEAR))
        inner = slice(rows.start - wide.start, rows.start - wide.start + min(rows.stop, self.shape[0]) - rows.start)
        first = second = np.full((inner.stop - inner.start, self.shape[1]), -np.inf, np.float32)
        of_first = np.zeros(first.shape, np.int32)
        for k, scene in enumerate(self.scenes):
            values = scene.read(wide, band)
            near = maximum_filter(np.where(np.isnan(values), -np.inf, values), 2 * NEAR + 1, mode="nearest")[inner]
            second = np.maximum(second, np.minimum(near, first))
            of_first[near > first] = k
            first = np.maximum(first, near)
        return first, second, of_first

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.read(rows, band)

    def close(self) -> None:
        """The scenes are their owner's."""


class _Spool(Writer):
    """One band's rows in a temporary file, to be read again."""

    def __init__(self, file: IO[bytes], columns: int) -> None:
        self.file, self.columns = file, columns

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.file.seek(4 * self.columns * row)
        self.file.write(np.ascontiguousarray(intensity, np.float32).data)

    def read(self, rows: slice) -> np.ndarray:
        self.file.seek(4 * self.columns * rows.start)
        count = (rows.stop - rows.start) * self.columns
        return np.frombuffer(self.file.read(4 * count), np.float32).reshape(-1, self.columns)


class _Ratio(Scene):
    """A date over the mean: 1 where the mean is 0."""

    def __init__(self, scene: Scene, means: Sequence[_Spool]) -> None:
        self.scene, self.means = scene, means
        self.info = replace(scene.info, domain="intensity", dtype="float32", offset=0.0, negatives="keep")

    def read(self, rows: slice, band: int = 0) -> np.ndarray:
        values, mean = self.scene.read(rows, band), self.means[band].read(slice(rows.start, min(rows.stop, self.shape[0])))
        dark = ~(mean > 0)
        return np.where(dark, np.where(np.isnan(values), np.nan, np.float32(1)), values / np.where(dark, 1, mean)).astype(
            np.float32)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.read(rows, band)

    def close(self) -> None:
        """The scene is its owner's."""


class _Times(Writer):
    """Takes despeckled ratios, writes the date; adds up its statistics. ``looks``: of the date where its strong scatterers
    are to be kept, else None."""

    def __init__(self, writer: Writer, scene: Scene, means: Sequence[_Spool], looks: float | None) -> None:
        self.writer, self.scene, self.means, self.looks = writer, scene, means, looks
        self.scales = [survey(scene, band, looks=False).scale for band in range(scene.bands)] if looks else []
        self.sums = np.zeros(2)
        self.pixels = 0
        self.windows = EvenWindows()

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        rows = slice(row, row + len(intensity))
        after = intensity * self.means[band].read(rows)
        before, offset = self.scene.read(rows, band), self.scene.offset(rows, band)
        if self.looks:
            after = self._with_scatterers(after, rows, band, self.looks)
        there = np.isfinite(before)
        self.pixels += int(there.sum())
        self.sums += [(x - offset).sum(where=there, dtype=np.float64) for x in (before, after)]
        self.windows.add(before, after)
        self.writer.write(settled(self.scene.info, after - offset, row), row, band)

    def _with_scatterers(self, after: np.ndarray, rows: slice, band: int, looks: float) -> np.ndarray:
        wide = slice(max(0, rows.start - MARGIN), min(self.scene.shape[0], rows.stop + MARGIN))
        inner = slice(rows.start - wide.start, rows.stop - wide.start)
        seen = self.scene.read(wide, band)
        if not np.isfinite(seen).any():
            return after
        scale = np.float32(self.scales[band])
        seen = fill_missing(seen) / scale
        ground = ground_level(seen, looks)[inner]
        wanted = np.empty_like(seen)
        wanted[:] = np.inf
        wanted[inner] = keep_strong(seen[inner], after / scale, ground, looks)
        return np.where(np.isnan(after), after, bounded(seen, wanted)[inner] * scale)

    def report(self, ratio: StreamReport) -> StreamReport:
        """Of the date, where ``ratio``'s says how."""
        means = self.sums / self.pixels if self.pixels else (None, None)
        enl_in, enl_out = self.windows.looks()
        return replace(ratio, mean_in=means[0], mean_out=means[1], enl_in=enl_in, enl_out=enl_out, valid_pixels=self.pixels)


def despeckle_dates(jobs: Sequence[Job], method: Method, progress: Callable[[float], None] = lambda share: None,
                    opened: Callable[[int, int, int], None] = lambda images, rows, columns: None) -> list[FileResult]:
    """Do the jobs of a stack, one a date, all with the settings of the first. An output appears when its date is done.
    ``opened`` hears before any work how many images of how many rows and columns there will be to despeckle.

    Raises :class:`ConfigError` for fewer than two dates and for ``match_mean`` "global", :class:`DataError` for dates of
    other shapes, bands or georeference, and what :func:`~nearflash.sar.files.despeckle_file` raises.
    """
    if len(jobs) < 2:
        raise ConfigError("temporal", len(jobs), "at least two dates")
    s = jobs[0].settings
    if s.match_mean == "global":
        raise ConfigError("match_mean", s.match_mean, "none or local for a stack: its mean is kept by date")
    results = []
    jobs[0].target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scenes = [stack.enter_context(open_scene(job.source, s.domain, nodata=s.nodata, db_scale=s.db_scale,
                                                 borders=s.borders, negatives=s.negatives, part=job.part, product=s.product))
                  for job in jobs]
        for job, scene in zip(jobs, scenes, strict=True):
            _check(job.source, scene, jobs[0].source, scenes[0])
        first, steps = scenes[0], (1 + len(jobs)) * scenes[0].bands
        done = 0
        opened(steps, *first.shape)

        def advance(row: int, rows: int) -> None:
            progress((done + row / rows) / steps)

        given = check_looks(s.looks)
        keeps = method.name in NETWORK_NAMES  # as each of them does on a date alone
        looks, means = [], []
        for band in range(first.bands):
            estimate = None if given or first.info.looks else survey(first, band).estimate
            looks.append(looks_to_use(given, first.info.looks, estimate))
            file = stack.enter_context(tempfile.TemporaryFile(dir=jobs[0].target.parent))
            means.append(_Spool(file, first.shape[1]))
            despeckle_stream(_Mean(scenes), means[-1], method, min(looks[-1][0] * len(jobs), MOST_LOOKS), tile=s.tile,
                             band=band, progress=advance)
            done += 1
        for job, scene in zip(jobs, scenes, strict=True):
            began, reports = time.perf_counter(), []
            with open_writer(scene, job.target, domain=s.out_domain, dtype=s.out_dtype, scale=s.out_scale,
                             overwrite=s.overwrite) as writer:
                for band in range(scene.bands):
                    times = _Times(writer, scene, means, looks[band][0] if keeps else None)
                    report = despeckle_stream(_Ratio(scene, means), times, method, looks[band][0], tile=s.tile, band=band,
                                              match_mean=s.match_mean, progress=advance)
                    reports.append(replace(times.report(report), looks_source=looks[band][1]))
                    done += 1
                require_valid(reports, str(job.source))
            names = tuple(scene.info.name(band) for band in range(scene.bands))
            results.append(FileResult(job.source, job.target, None, scene.shape, time.perf_counter() - began, tuple(reports),
                                      names, scene.info.choice, scene.info.notes))
    return results


def _check(path: Path, scene: Scene, first_path: Path, first: Scene) -> None:
    """That a date lies on the first one's grid."""
    for field, one, other in (("shape", scene.shape, first.shape), ("bands", scene.bands, first.bands),
                              ("transform", scene.origin.transform, first.origin.transform),
                              ("CRS", scene.origin.crs, first.origin.crs)):
        if one != other:
            raise DataError(f"{path} {field}", one, f"must be that of {first_path}, {other}: the dates of a stack are "
                            "co-registered")
