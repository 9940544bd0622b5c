"""Despeckling files: one job is one file, from opening it to the finished output under its name."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import ConfigError
from .domain import check_domain, check_scale
from .io import SUFFIXES, open_scene, open_writer
from .io.base import output_type
from .methods import Method, load_method
from .scene import MATCHES, StreamReport, check_looks, despeckle_stream, require_valid

__all__ = ["FileResult", "Job", "Settings", "despeckle_file", "find_inputs", "plan_jobs"]


@dataclass(frozen=True)
class Settings:
    """What is the same for all files. ``looks``: a number above 0 or "auto"; ``domain``: None is complex for complex values
    and amplitude for all others; ``tile``: pixels. Raises :class:`ConfigError` for values that no file could have."""

    method: str = "base"
    looks: float | str = "auto"
    domain: str | None = None
    out_domain: str | None = None
    out_dtype: str | None = None
    nodata: float | None = None
    db_scale: float = 1.0
    tile: int = 512
    device: str = "cpu"
    checkpoint: Path | None = None
    match_mean: str = "none"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_looks(self.looks)
        check_scale(self.db_scale)
        if self.domain is not None:
            check_domain(self.domain)
        if self.out_domain is not None:
            check_domain(self.out_domain, "out_domain", output=True)
        if self.out_dtype is not None:
            output_type(self.out_dtype)
        if self.match_mean not in MATCHES:
            raise ConfigError("match_mean", self.match_mean, f"must be one of {', '.join(MATCHES)}")

    def load_method(self) -> Method:
        """The method these settings name. Raises :class:`ConfigError` for an unknown one."""
        return load_method(self.method, device=self.device, checkpoint=self.checkpoint)


@dataclass(frozen=True)
class Job:
    """One file to do. ``ratio``: where to write the ratio image too."""

    source: Path
    target: Path
    settings: Settings
    ratio: Path | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of a job: ``error`` (text) or ``bands``' reports. ``seconds``: from opening to the finished file."""

    source: Path
    target: Path
    error: str | None = None
    shape: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    bands: tuple[StreamReport, ...] = ()

    @property
    def megapixels_per_second(self) -> float:
        return self.shape[0] * self.shape[1] * len(self.bands) / 1e6 / self.seconds if self.seconds else 0.0


def find_inputs(names: Iterable[str]) -> list[Path]:
    """The files that ``names`` mean: files, folders (their images, not those of folders below) and glob patterns.

    Raises :class:`ConfigError` for a folder or pattern without an image.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not matches:
                raise ConfigError("input", name, f"must hold at least one file of {', '.join(SUFFIXES)}")
        elif glob.has_magic(name) and not path.exists():
            matches = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).suffix.lower() in SUFFIXES)
            if not matches:
                raise ConfigError("input", name, f"must match at least one file of {', '.join(SUFFIXES)}")
        else:
            matches = [path]
        found += [p for p in matches if p not in found]
    return found


def plan_jobs(names: Sequence[str], out: Path, settings: Settings, ratio: Path | None = None) -> list[Job]:
    """A job per input. ``out`` and ``ratio`` are files for one named file, and folders (files keep their names) for several
    inputs, a folder, a pattern, or where ``out`` is a folder already.

    Raises :class:`ConfigError` for outputs that would be the input or each other.
    """
    inputs = find_inputs(names)
    single = len(names) == 1 and inputs == [Path(names[0])]
    into_folder = not single or out.is_dir()
    if into_folder and out.is_file():
        raise ConfigError("out", str(out), "must be a folder for several inputs")
    jobs = []
    written: dict[Path, Path] = {}
    for source in inputs:
        target = out / source.name if into_folder else out
        ratio_file = ratio and (ratio / f"{source.stem}.tif" if into_folder else ratio)
        for path in (target, ratio_file):
            if path is None:
                continue
            if path.resolve() == source.resolve():
                raise ConfigError("out", str(path), "is the input itself: choose another name or folder")
            if path.resolve() in written:
                raise ConfigError("out", str(path), f"would be written for both {written[path.resolve()]} and {source}")
            written[path.resolve()] = source
        jobs.append(Job(source, target, settings, ratio_file))
    return jobs


def despeckle_file(job: Job, method: Method, progress: Callable[[float], None] | None = None) -> FileResult:
    """Do one job; the outputs appear under their names when all bands are done. ``progress``: called with the share done.

    Raises what :func:`~nearflash.sar.io.open_scene`, :func:`~nearflash.sar.io.open_writer` and
    :func:`~nearflash.sar.scene.despeckle_stream` raise; no output is left then.
    """
    s = job.settings
    began = time.perf_counter()
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(job.source, s.domain, nodata=s.nodata, db_scale=s.db_scale))
        writer = stack.enter_context(open_writer(scene, job.target, domain=s.out_domain, dtype=s.out_dtype,
                                                 overwrite=s.overwrite))
        ratio = None
        if job.ratio is not None:
            ratio = stack.enter_context(open_writer(scene, job.ratio, domain="intensity", dtype="float32",
                                                    overwrite=s.overwrite))
        reports = []
        for band in range(scene.bands):

            def advance(done: int, rows: int, before: int = band, bands: int = scene.bands) -> None:
                if progress is not None:
                    progress((before + done / rows) / bands)

            reports.append(despeckle_stream(scene, writer, method, s.looks, tile=s.tile, band=band, match_mean=s.match_mean,
                                            ratio=ratio, scratch=job.target.parent, progress=advance))
        require_valid(reports, str(job.source))
    return FileResult(job.source, job.target, None, scene.shape, time.perf_counter() - began, tuple(reports))


def mean_kept(result: FileResult) -> float | None:
    """Mean intensity out over in, of all valid pixels of all bands; None where the input is all 0."""
    done = [r for r in result.bands if r.mean_in is not None and r.mean_out is not None]
    before = float(np.sum([r.mean_in * r.valid_pixels for r in done])) if done else 0.0  # type: ignore[operator]
    after = float(np.sum([r.mean_out * r.valid_pixels for r in done])) if done else 0.0  # type: ignore[operator]
    return after / before if before > 0 else None
