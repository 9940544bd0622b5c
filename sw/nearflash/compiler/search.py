"""Exact search over kernels: fronts of (steps, cost), joined as the layers run.

A front holds the choices that no other beats in both time and cost. Layers that overlap take the slowest's time, layers in
sequence the sum; costs always add. Both ways of joining keep every choice that can be part of a best whole, so the least
cost for a limit on the time is exact for any cost that is a sum over kernels.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choice", "front", "least", "least_in_sequence", "one_after_another", "side_by_side"]


@dataclass(frozen=True)
class Choice:
    """Kernels (by core: kr and kc; or by node: which of its choices) that take ``steps`` at ``cost``."""

    steps: int
    cost: float
    kernels: dict[Any, Any]


def front(choices: list[Choice]) -> list[Choice]:
    """Those for which no other is both as fast and as cheap, fastest first; of equal ones the first."""
    kept = _kept(np.array([c.steps for c in choices], np.int64), np.array([c.cost for c in choices]))
    return [choices[i] for i in kept.tolist()]


def _kept(steps: NDArray[np.int64], cost: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the front."""
    order = np.lexsort((cost, steps))  # stable
    cost = cost[order]
    better = np.ones(len(cost), np.bool_)
    better[1:] = cost[1:] < np.minimum.accumulate(cost)[:-1]
    return order[better]


def side_by_side(parts: list[list[Choice]]) -> list[Choice]:
    """Front of what runs at the same time, of the ``parts``' fronts: the slowest counts. For every time, the cheapest choice
    of each part."""
    if len(parts) == 1:
        return parts[0]
    times = [[c.steps for c in part] for part in parts]
    out = []
    for steps in sorted(set().union(*times)):
        fast = [bisect_right(t, steps) for t in times]
        if all(fast):
            best = [part[n - 1] for part, n in zip(parts, fast, strict=True)]
            out.append(Choice(max(c.steps for c in best), sum(c.cost for c in best),
                              {i: k for c in best for i, k in c.kernels.items()}))
    return front(out)


def one_after_another(parts: list[list[Choice]]) -> list[Choice]:
    """Front of what runs in sequence."""
    return [_chosen(parts, *way) for way in zip(*_sums(parts), strict=True)]


def least_in_sequence(parts: list[list[Choice]], limit: int) -> Choice | None:
    """The least cost of ``parts`` in sequence that takes ``limit`` steps; None if none does. As :func:`least` of
    :func:`one_after_another`, which names the kernels of a whole front."""
    steps, cost, picks = _sums(parts, limit)
    return _chosen(parts, steps[-1], cost[-1], picks[-1]) if steps else None


def _sums(parts: list[list[Choice]], limit: int | None = None) -> tuple[list[int], list[float], list[list[int]]]:
    """(steps, cost, number of each part's choice) of the ways through ``parts`` that make the front, within ``limit``."""
    steps, cost, picks = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 0), np.int64)
    for part in parts:
        steps = np.add.outer(steps, np.array([c.steps for c in part], np.int64)).ravel()
        cost = np.add.outer(cost, np.array([c.cost for c in part])).ravel()
        kept = _kept(steps, cost)
        if limit is not None:
            kept = kept[: np.searchsorted(steps[kept], limit, "right")]
        steps, cost = steps[kept], cost[kept]
        before, own = np.divmod(kept, len(part))
        picks = np.column_stack((picks[before], own))
    return steps.tolist(), cost.tolist(), picks.tolist()


def _chosen(parts: list[list[Choice]], steps: int, cost: float, picks: list[int]) -> Choice:
    return Choice(steps, cost, {i: k for part, n in zip(parts, picks, strict=True) for i, k in part[n].kernels.items()})


def least(found: list[Choice], limit: int) -> Choice:
    """The least cost that takes ``limit`` steps; the fastest there is if none does."""
    return next((c for c in reversed(found) if c.steps <= limit), found[0])
