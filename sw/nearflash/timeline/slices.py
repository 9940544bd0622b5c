"""Slices of time on named tracks, and where two timelines part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..contract import DataError

__all__ = ["MOST_SLICES", "Difference", "Slice", "check_slices", "first_difference", "host_slices"]

MOST_SLICES = 500_000  # of a timeline that a command writes: 30 MB, which browsers still show fluently


class Slice(NamedTuple):
    """What ``track`` does from ``begin`` to before ``end``, in cycles or ns.

    Tracks: ``host.slotN`` (a command, doorbell to acknowledgement), ``channelN.bus``, ``channelN.dieN``, ``cache``,
    ``pooling`` (a row), ``drain`` (a sample), ``mlp.NODE`` or ``mlp.NODE.N`` (a group in a layer's core).
    """

    track: str
    name: str
    begin: int
    end: int


def host_slices(submitted: Sequence[int], completed: Sequence[int], depth: int) -> list[Slice]:
    """Of commands in the order in which they were sent. One has one of ``depth`` slots: it begins after the one that many
    before it has ended."""
    return [Slice(f"host.slot{i % depth}", f"command {i}", begin, end)
            for i, (begin, end) in enumerate(zip(submitted, completed, strict=True))]


def check_slices(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """By track, in order of time. Raises :class:`~nearflash.contract.DataError` for one that does not end after it begins
    and for two that are open on one track."""
    tracks: dict[str, list[Slice]] = {}
    for s in sorted(slices, key=lambda s: (s.begin, s.end)):
        held = tracks.setdefault(s.track, [])
        if s.end <= s.begin:
            raise DataError(s.track, (s.begin, s.end), f"{s.name}: must end after it begins")
        if held and held[-1].end > s.begin:
            raise DataError(s.track, s.begin, f"{s.name} begins while {held[-1].name} is open, until {held[-1].end}")
        held.append(s)
    return tracks


class Difference(NamedTuple):
    """The first slice that one timeline has and the other hasn't there: ``number`` of its track; None: there is none."""

    track: str
    number: int
    before: Slice | None
    after: Slice | None


def _parted(a: Slice | None, b: Slice | None) -> tuple[int, int]:
    """When two slices of one place part: where one begins that the other doesn't have, or where the shorter ends; and when
    they begin, as of what parts in one cycle the longer under way is the cause."""
    both = [s for s in (a, b) if s is not None]
    same = len(both) == 2 and both[0].name == both[1].name and both[0].begin == both[1].begin
    return min(s.end if same else s.begin for s in both), min(s.begin for s in both)


def first_difference(a: dict[str, list[Slice]], b: dict[str, list[Slice]]) -> Difference | None:
    """Where two timelines part first, over all tracks; None if they are equal."""
    found: list[tuple[tuple[int, int], Difference]] = []
    for track in sorted({*a, *b}):
        x, y = a.get(track, []), b.get(track, [])
        number = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
        if number < max(len(x), len(y)):
            p, q = (s[number] if number < len(s) else None for s in (x, y))
            found.append((_parted(p, q), Difference(track, number, p, q)))
    return min(found, key=lambda f: f[0])[1] if found else None
