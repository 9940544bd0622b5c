"""Bursts of a TOPS single-look complex image, laid out as one image or cut out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...contract import DataError
from .safe import MICRO, Annotation

__all__ = ["Rows", "burst_rows", "merged_rows", "plain_rows"]


@dataclass(frozen=True)
class Rows:
    """Where an image's rows come from: ``source``: rows of the file, int [H]; ``lines``: their place in azimuth, in rows of
    the merged image, float64 [H]; ``first``, ``last``: valid samples, -1 for none, int [H]; None where all are."""

    source: np.ndarray
    lines: np.ndarray
    first: np.ndarray | None = None
    last: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source)


def plain_rows(count: int) -> Rows:
    """An image without bursts: the file's rows."""
    return Rows(np.arange(count), np.arange(count, dtype=np.float64))


def burst_rows(annotation: Annotation, number: int) -> Rows:
    """The rows of burst ``number`` from 0."""
    burst, start = annotation.bursts[number], _starts(annotation)[number]
    lines = len(burst.first)
    return Rows(np.arange(lines) + number * lines, start + np.arange(lines, dtype=np.float64), burst.first, burst.last)


def merged_rows(annotation: Annotation, field: str) -> Rows:
    """All bursts as one image on the lines' own grid: where two overlap, each gives its half of the lines valid in both.

    Raises :class:`DataError` for bursts that leave a gap.
    """
    starts = np.rint(_starts(annotation)).astype(int)
    spans = []
    for start, burst in zip(starts, annotation.bursts, strict=True):
        valid = np.flatnonzero(burst.first >= 0)
        if not len(valid):
            raise DataError(f"{field} burst", start, "must have a valid line")
        spans.append((start + int(valid[0]), start + int(valid[-1]) + 1))
    cuts = [spans[0][0]]
    for k, (before, after) in enumerate(zip(spans, spans[1:], strict=False)):
        if after[0] > before[1]:
            raise DataError(f"{field} bursts", f"{k + 1} and {k + 2}", "must overlap or touch")
        cuts.append((after[0] + before[1]) // 2)
    cuts.append(spans[-1][1])
    per_burst = len(annotation.bursts[0].first)
    parts = [np.arange(a, b) - start + k * per_burst
             for k, (a, b, start) in enumerate(zip(cuts, cuts[1:], starts, strict=False))]
    source = np.concatenate(parts)
    first = np.concatenate([b.first for b in annotation.bursts])
    last = np.concatenate([b.last for b in annotation.bursts])
    return Rows(source, np.arange(cuts[0], cuts[-1], dtype=np.float64), first[source], last[source])


def _starts(annotation: Annotation) -> np.ndarray:
    """First lines of the bursts in rows of the merged image, whose row 0 is the first burst's."""
    times = np.array([b.time for b in annotation.bursts])
    return (times - times[0]) * MICRO / annotation.interval
