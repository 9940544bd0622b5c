"""What a scene's values are and which of them count, settled before the first is used: for files and arrays alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..contract import ConfigError, DataError
from .borders import find_border
from .choose import choose_domain
from .domain import check_domain, check_negatives
from .fills import find_fills
from .io.base import Scene, SceneInfo
from .statistics import sample_places

__all__ = ["BORDERS", "check_borders", "settle"]

BORDERS = ("auto", "keep")
MOST_BANDS = 16  # that are looked at: a long stack's bands are alike
MOST_NEGATIVE = 0.5  # of the pixels: more is no noise about 0


def check_borders(borders: str) -> str:
    """``borders`` if it is one of :data:`BORDERS`. Raises :class:`ConfigError`."""
    if borders not in BORDERS:
        raise ConfigError("borders", borders, f"must be one of {', '.join(BORDERS)}")
    return borders


def settle(scene: Scene, domain: str | None = None, *, borders: str = "auto", negatives: str = "keep") -> None:
    """Complete ``scene.info``: the domain by :func:`~nearflash.sar.choose.choose_domain`, undeclared fills and borders
    (with ``borders`` "auto"), one look for complex values, and the offset of negative intensity (with ``negatives`` "keep").

    Looks at :func:`~nearflash.sar.statistics.sample_places`, in up to 16 bands. Raises
    :class:`~nearflash.contract.ConfigError` for unknown settings, :class:`~nearflash.sar.choose.DomainError` where the
    domain can't be told, :class:`~nearflash.contract.DataError` for intensity that is mostly negative.
    """
    check_borders(borders)
    check_negatives(negatives)
    if domain is not None:
        check_domain(domain)
    info = replace(scene.info, negatives=negatives)
    if np.dtype(info.dtype).kind == "c" or domain == "complex":
        info = _settle_complex(info, domain)
        sample = []
    else:
        sample = _real_sample(scene)
        if borders == "auto":
            info, sample = _mark_fills(info, sample)
        choice = choose_domain(domain, info.words, info.dtype, sample, field=str(info.path), db_scale=info.db_scale)
        info = replace(info, domain=choice.domain, choice=choice)
    if choice := info.choice:
        if choice.source == "test":
            info = _note(info, f"taken for {choice.domain} by the values' statistics ({choice.confidence:.1%} sure): "
                               "--domain says otherwise")
        if choice.doubt:
            info = _note(info, f"taken for {choice.domain} ({choice.reason}), but {choice.doubt}")
    if info.domain == "intensity":
        info = _lift(info, sample)
    scene.info = info
    if borders == "auto" and info.domain != "db":  # 0 dB is as good a value as any
        scene.info = _mark_border(scene)


def _mark_border(scene: Scene) -> SceneInfo:
    info = scene.info
    places = [(band, rows, columns) for band in _sampled_bands(scene) for rows, columns in sample_places(scene.shape)]
    pixels = np.concatenate([(part := scene.read(rows, band)[:, columns])[part > 0] for band, rows, columns in places])
    if not len(pixels):
        return info
    border = find_border((scene.read(rows, band) for band, rows, _ in places), float(np.median(pixels)))
    if border is None:
        return info
    noise = ", and noise beside them," if border.noise else ""
    info = _note(info, f"borders of zeros{noise} masked: {border.share:.1%} of the sampled pixels (--borders keep keeps "
                       "them)")
    return replace(info, border=border, mark=0.0)  # as it was: 0 inside the border is a valid value, and stays one


def _sampled_bands(scene: Scene) -> list[int]:
    count = min(scene.bands, MOST_BANDS)
    return [k * scene.bands // count for k in range(count)]


def _settle_complex(info: SceneInfo, domain: str | None) -> SceneInfo:
    choice = choose_domain(domain, (), "complex64", [], field=str(info.path))
    # What still has its phase is of one look: more are averages of intensity
    return replace(info, domain="complex", choice=choice, looks=1.0 if info.looks is None else info.looks)


def _real_sample(scene: Scene) -> list[np.ndarray]:
    """Sampled rows of every band, float [rows, W], NaN missing."""
    sample = []
    for band in _sampled_bands(scene):
        for rows, columns in sample_places(scene.shape):
            values, missing = (part[:, columns] for part in scene.read_values(rows, band))
            values = values.astype(np.result_type(values.dtype, np.float32))
            values[missing] = np.nan
            sample.append(values)
    return sample


def _mark_fills(info: SceneInfo, sample: list[np.ndarray]) -> tuple[SceneInfo, list[np.ndarray]]:
    fills = find_fills(sample, info.dtype)
    for fill in fills:
        info = _note(info, f"{fill.share:.1%} of the sampled pixels are {fill.value:g}, taken for missing though not "
                           "declared so (--nodata declares, --borders keep keeps them)")
    if not fills:
        return info, sample
    marks = [f.value for f in fills]
    if info.nodata is None:
        info = replace(info, nodata=marks.pop(0))
    info = replace(info, fills=tuple(marks))
    return info, [np.where(np.isin(s, [f.value for f in fills]), np.nan, s) for s in sample]


def _lift(info: SceneInfo, sample: list[np.ndarray]) -> SceneInfo:
    """The offset that makes ``sample``'s intensity positive, where noise removal left some of it negative."""
    values = np.concatenate([s[np.isfinite(s)] for s in sample])
    share = _negative(sample)
    if share == 0 or info.negatives == "error":
        return info
    if share > MOST_NEGATIVE and info.negatives == "keep":
        raise DataError(f"{info.path} negative values", f"{share:.0%}", "must be noise about 0, intensity itself is at "
                        "least 0: mostly negative values are decibel (domain db); --negatives clip or mask takes them for "
                        "intensity")
    if info.negatives != "keep":
        done = {"clip": "set to 0", "mask": "masked"}[info.negatives]
        return _note(info, f"{share:.1%} of the sampled intensities are negative: {done}")
    return _note(replace(info, offset=-float(values.min())),
                 f"{share:.1%} of the sampled intensities are negative, kept as noise about 0 (--negatives)")


def _negative(sample: list[np.ndarray]) -> float:
    """The share of the finite values that are negative."""
    finite = sum(int(np.isfinite(s).sum()) for s in sample)
    return sum(int((s < 0).sum()) for s in sample) / finite if finite else 0.0


def _note(info: SceneInfo, text: str) -> SceneInfo:
    return replace(info, notes=(*info.notes, text))
