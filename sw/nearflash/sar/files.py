"""Despeckling files: one job is one image, from opening it to the finished output under its name."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import ConfigError, NearflashError
from .choose import DomainChoice
from .domain import check_domain, check_negatives, check_scale
from .io import SUFFIXES, Image, ProductOptions, images_in, is_product, open_scene, open_writer
from .io.base import output_type
from .io.encoding import check_out_scale
from .methods import Method, cycle_spin, load_method
from .scene import MATCHES, StreamReport, check_looks, despeckle_stream, require_valid
from .settle import check_borders
from .tiles import TILE

__all__ = ["FileResult", "Job", "Settings", "attempt", "despeckle_file", "find_inputs", "plan_jobs"]


DEFAULT_PRODUCT = ProductOptions()


@dataclass(frozen=True)
class Settings:
    """What is the same for all files. ``looks``: a number above 0 or "auto"; ``domain``: None finds it
    (:mod:`nearflash.sar.choose`); ``tile``: pixels; ``product``: what is wanted of products; ``config``, ``overlay``: of a
    fabric, see :func:`~nearflash.sar.methods.load_method`. Raises :class:`ConfigError` for
    values that no file could have."""

    method: str = "base"
    looks: float | str = "auto"
    domain: str | None = None
    out_domain: str | None = None
    out_dtype: str | None = None
    nodata: float | None = None
    db_scale: float = 1.0
    tile: int = TILE
    device: str = "cpu"
    checkpoint: Path | None = None
    match_mean: str = "none"
    overwrite: bool = False
    out_scale: float | str | None = None
    borders: str = "auto"
    negatives: str = "keep"
    product: ProductOptions = DEFAULT_PRODUCT
    cycle_spin: bool = False
    config: Path | None = None
    overlay: Path | None = None

    def __post_init__(self) -> None:
        check_looks(self.looks)
        check_out_scale(self.out_scale)
        check_borders(self.borders)
        check_negatives(self.negatives)
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
        """The method these settings name, to be closed. Raises :class:`ConfigError` for an unknown one."""
        method = load_method(self.method, device=self.device, checkpoint=self.checkpoint, config=self.config,
                             overlay=self.overlay)
        return cycle_spin(method) if self.cycle_spin else method


@dataclass(frozen=True)
class Job:
    """One image to do. ``ratio``: where to write the ratio image too; ``part``: of a product, its image."""

    source: Path
    target: Path
    settings: Settings
    ratio: Path | None = None
    part: str | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of a job: ``error`` (text) or ``bands``' reports, ``names`` of the bands, the ``domain`` of its values and
    ``notes`` about them. ``seconds``: from opening to the finished file."""

    source: Path
    target: Path
    error: str | None = None
    shape: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    bands: tuple[StreamReport, ...] = ()
    names: tuple[str, ...] = ()
    domain: DomainChoice | None = None
    notes: tuple[str, ...] = ()

    @property
    def megapixels_per_second(self) -> float:
        return self.shape[0] * self.shape[1] * len(self.bands) / 1e6 / self.seconds if self.seconds else 0.0


def find_inputs(names: Iterable[str]) -> list[Path]:
    """The files that ``names`` mean: files, products (a .SAFE folder or its .zip, SNAP's .dim), folders (their images and
    products, not those of folders below) and glob patterns.

    Raises :class:`ConfigError` for a folder or pattern without an image.
    """
    def usable(path: Path) -> bool:
        return path.suffix.lower() in (*SUFFIXES, ".dim") or is_product(path)

    kinds = ", ".join((*SUFFIXES, ".SAFE", ".zip", ".dim"))
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir() and not is_product(path):
            matches = sorted(p for p in path.iterdir() if usable(p))
            if not matches:
                raise ConfigError("input", name, f"must hold at least one file of {kinds}")
        elif glob.has_magic(name) and not path.exists():
            matches = sorted(p for p in map(Path, glob.glob(name, recursive=True)) if usable(p))
            if not matches:
                raise ConfigError("input", name, f"must match at least one file of {kinds}")
        else:
            matches = [path]
        found += [p for p in matches if p not in found]
    return found


def plan_jobs(names: Sequence[str], out: Path | None, settings: Settings, ratio: Path | None = None) -> list[Job]:
    """A job per image. ``out`` and ``ratio`` are files for one named image, and folders for several, a folder, a pattern, or
    where ``out`` is a folder already or has no suffix: there images of products are named after the product, all others
    keep their names.
    ``out`` None is the working folder, for products alone.

    A product that can't be listed is a job of its own, which will say why. Raises :class:`ConfigError` for outputs that
    would be the input or each other.
    """
    inputs = find_inputs(names)
    if out is None:
        for path in inputs:
            if not is_product(path):
                raise ConfigError("out", None, f"must be given: {path} is no product to name the output after")
        out = Path()
    images: list[Image] = []
    for path in inputs:
        try:
            images += images_in(path, settings.product)
        except (NearflashError, OSError) as e:
            if len(inputs) == 1 and isinstance(e, ConfigError):
                raise  # the command's, not the file's
            images.append(Image(path, None, f"{path.stem}.tif"))
    single = len(names) == 1 and len(images) == 1 and inputs == [Path(names[0])]
    into_folder = not single or out.is_dir() or not out.suffix
    if into_folder and out.exists() and not out.is_dir():
        raise ConfigError("out", str(out), f"must be a folder{'' if single else ' for several images'}, or not there yet"
                          f"{', or end in .tif, .npy or .png' if single else ''}")
    jobs = []
    written: dict[Path, Path] = {}
    for image in images:
        source = image.path
        target = out / _writable(image.name) if into_folder else out
        ratio_file = ratio and (ratio / f"{Path(image.name).stem}.tif" if into_folder else ratio)
        for path in (target, ratio_file):
            if path is None:
                continue
            if path.resolve() == source.resolve():
                raise ConfigError("out", str(path), "is the input itself: choose another name or folder")
            if path.resolve() in written:
                raise ConfigError("out", str(path), f"would be written for both {written[path.resolve()]} and {source}")
            written[path.resolve()] = source
        jobs.append(Job(source, target, settings, ratio_file, image.part))
    return jobs


def _writable(name: str) -> str:
    """An output's name for an input of that name: a format that is only read becomes a GeoTIFF."""
    path = Path(name)
    return name if path.suffix.lower() in (".tif", ".tiff", ".npy", ".png") else f"{path.stem}.tif"


def attempt(job: Job, method: Method, progress: Callable[[float], None] | None = None,
            opened: Callable[[int, int, int], None] | None = None) -> FileResult:
    """:func:`despeckle_file`, whatever it raises as a result with that error: no file ends the others' work."""
    try:
        return despeckle_file(job, method, progress, opened)
    except (NearflashError, OSError) as e:
        return FileResult(job.source, job.target, f"{type(e).__name__}: {e}")
    except Exception as e:  # a bug or a library's error; the message alone may say nothing
        return FileResult(job.source, job.target, f"unexpected {type(e).__name__}: {e}")


def despeckle_file(job: Job, method: Method, progress: Callable[[float], None] | None = None,
                   opened: Callable[[int, int, int], None] | None = None) -> FileResult:
    """Do one job; the outputs appear under their names when all bands are done. ``progress``: called with the share done;
    ``opened``: with bands, rows and columns before any work.

    Raises what :func:`~nearflash.sar.io.open_scene`, :func:`~nearflash.sar.io.open_writer` and
    :func:`~nearflash.sar.scene.despeckle_stream` raise; no output is left then.
    """
    s = job.settings
    began = time.perf_counter()
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(job.source, s.domain, nodata=s.nodata, db_scale=s.db_scale, borders=s.borders,
                                               negatives=s.negatives, part=job.part, product=s.product))
        writer = stack.enter_context(open_writer(scene, job.target, domain=s.out_domain, dtype=s.out_dtype,
                                                 scale=s.out_scale, overwrite=s.overwrite))
        ratio = None
        if job.ratio is not None:
            ratio = stack.enter_context(open_writer(scene, job.ratio, domain="intensity", dtype="float32",
                                                    overwrite=s.overwrite))
        if opened is not None:
            opened(scene.bands, *scene.shape)
        reports = []
        for band in range(scene.bands):

            def advance(done: int, rows: int, before: int = band, bands: int = scene.bands) -> None:
                if progress is not None:
                    progress((before + done / rows) / bands)

            reports.append(despeckle_stream(scene, writer, method, s.looks, tile=s.tile, band=band, match_mean=s.match_mean,
                                            ratio=ratio, scratch=job.target.parent, progress=advance))
        require_valid(reports, str(job.source))
    info = scene.info
    names = tuple(info.name(band) for band in range(scene.bands))
    return FileResult(job.source, job.target, None, scene.shape, time.perf_counter() - began, tuple(reports), names,
                      info.choice, info.notes)


def mean_kept(result: FileResult) -> float | None:
    """Mean intensity out over in, of all valid pixels of all bands; None where the input is all 0."""
    done = [r for r in result.bands if r.mean_in is not None and r.mean_out is not None]
    before = float(np.sum([r.mean_in * r.valid_pixels for r in done])) if done else 0.0  # type: ignore[operator]
    after = float(np.sum([r.mean_out * r.valid_pixels for r in done])) if done else 0.0  # type: ignore[operator]
    return after / before if before > 0 else None
