"""Orders of a table's rows, learnt from queries: by how often each row is asked for, and by which are asked for together.

A page holds rows that follow one another, and pages go round the dies in turn
(:class:`~nearflash.contract.table.TableSpec`), so an order of rows says which rows share a page and which a die.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract import DataError, DeviceConfig, TableSpec
from .partition import partition

__all__ = ["METHODS", "Geometry", "learn", "striped"]

METHODS = ("none", "frequency", "co-access", "both")


@dataclass(frozen=True)
class Geometry:
    """Of a table on a device: rows in each page, dies over which the pages go in turn, the die of its first page."""

    rows: int
    page_rows: int
    dies: int
    first_die: int

    @classmethod
    def of(cls, config: DeviceConfig, tables: Sequence[TableSpec]) -> list[Geometry]:
        """Of ``tables`` that lie one behind the other from logical block 0 on, as on an empty device."""
        out, page, dies = [], 0, config.flash.channels * config.flash.channel_planes
        for t in tables:
            out.append(cls(t.rows, t.rows_per_page(config), dies, page % dies))
            page += t.pages(config)
        return out


def learn(method: str, geometry: Sequence[Geometry], bags: Sequence[tuple[np.ndarray, np.ndarray]], together: int = 8,
          seed: int = 0) -> tuple[np.ndarray, ...]:
    """Positions (int64 [rows], per table) learnt from the queries ``bags``: (indices, offsets) per table.

    *none*: as they are. *frequency*: by falling number of lookups, the rows of a stripe (a page of every die) dealt to its
    pages in turn: hot rows lie in few pages, none of which is much hotter than another. *co-access*: rows of ``together``
    consecutive queries share pages where possible (:mod:`.partition`). *both*: the hottest stripe by frequency, others by
    co-access. Pages then go to dies such that all have as many lookups; rows never seen follow in their own order.

    Raises :class:`~nearflash.contract.DataError` for another method, no query, or a row that a table lacks.
    """
    if method not in METHODS:
        raise DataError("method", method, f"must be one of {METHODS}")
    if together < 1:
        raise DataError("together", together, "must be at least 1 query")
    if not any(len(i) for i, _ in bags):
        raise DataError("lookups", 0, "must hold at least one to learn from")
    load = np.zeros(geometry[0].dies)
    out = []
    for t, (g, (indices, offsets)) in enumerate(zip(geometry, bags, strict=True)):
        if len(indices) and not 0 <= indices.min() <= indices.max() < g.rows:
            raise DataError(f"index for table {t}", int(indices.max()), f"must be from 0 to {g.rows - 1}")
        heat = np.bincount(indices, minlength=g.rows)
        by_heat = np.argsort(-heat, kind="stable")
        if method == "none":
            out.append(np.arange(g.rows))
            continue
        if method == "frequency":
            position = _positions(by_heat, g, dealt=-(-g.rows // (g.page_rows * g.dies)))
            out.append(_balanced(position, heat, g, load))
            continue
        lengths = np.diff(np.append(offsets, len(indices)))
        sets = np.repeat(np.arange(len(offsets)), lengths) // together
        hot = by_heat[: g.page_rows * g.dies] if method == "both" else by_heat[:0]
        hot = hot[heat[hot] > 0]
        hot = hot[: len(hot) // (g.page_rows * g.dies) * g.page_rows * g.dies]  # whole stripes alone are dealt
        order = np.concatenate([hot, _by_access(sets, indices, hot, heat, g, seed)])
        position = _positions(order, g, dealt=len(hot) // (g.page_rows * g.dies))
        out.append(_balanced(position, heat, g, load))
    return tuple(out)


def striped(geometry: Sequence[Geometry]) -> tuple[np.ndarray, ...]:
    """Positions for which consecutive rows lie in consecutive dies, as RM-SSD stripes its vectors (HPCA 2022)."""
    return tuple(_positions(np.arange(g.rows), g, dealt=-(-g.rows // (g.page_rows * g.dies))) for g in geometry)


def _by_access(sets: np.ndarray, indices: np.ndarray, hot: np.ndarray, heat: np.ndarray, g: Geometry, seed: int
               ) -> np.ndarray:
    """All rows but the ``hot`` ones: those seen by what they were seen with, the others as they are."""
    left = np.ones(g.rows, bool)
    left[hot] = False
    seen = np.flatnonzero(left & (heat > 0))
    number = np.full(g.rows, -1)
    number[seen] = np.arange(len(seen))
    there = number[indices] >= 0
    order = seen[partition(sets[there], number[indices[there]], len(seen), g.page_rows, seed)]
    return np.concatenate([order, np.flatnonzero(left & (heat == 0))])


def _positions(order: np.ndarray, g: Geometry, dealt: int) -> np.ndarray:
    """From rows in order to the position of each; those of the first ``dealt`` stripes go to the pages of theirs in turn."""
    k = np.arange(g.rows)
    stripe = g.page_rows * g.dies
    within = k % stripe
    wanted = np.where(k < dealt * stripe, k - within + within % g.dies * g.page_rows + within // g.dies, k)
    position = np.empty(g.rows, np.int64)
    position[order[np.argsort(wanted, kind="stable")]] = k  # without gaps where the last stripe isn't full
    return position


def _balanced(position: np.ndarray, heat: np.ndarray, g: Geometry, load: np.ndarray) -> np.ndarray:
    """The same pages, whole ones exchanged so that each die gets about as many lookups; the hottest pages first, each to the
    die that has the least so far. ``load`` [dies]: lookups of the tables before, to which this one's are added."""
    pages = np.bincount(position // g.page_rows, heat)
    whole = g.rows // g.page_rows
    die = (g.first_die + np.arange(whole)) % g.dies
    free = [list(np.flatnonzero(die == d)) for d in range(g.dies)]
    target = np.arange(len(pages))
    for page in np.argsort(-pages[:whole], kind="stable"):
        best = min((d for d in range(g.dies) if free[d]), key=lambda d: (load[d], d))
        target[page] = free[best].pop(0)
        load[best] += pages[page]
    if len(pages) > whole:  # the last page is not full and stays
        load[(g.first_die + whole) % g.dies] += pages[whole]
    return target[position // g.page_rows] * g.page_rows + position % g.page_rows
