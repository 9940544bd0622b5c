"""Exact search over kernels: fronts of (steps, cost), joined as the layers run.

A front holds the choices that no other beats in both time and cost. Layers that overlap take the slowest's time, layers in
sequence the sum; costs always add. Both ways of joining keep every choice that can be part of a best whole, so the least
cost for a limit on the time is exact for any cost that is a sum over kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "front", "least", "one_after_another", "side_by_side"]


@dataclass(frozen=True)
class Choice:
    """Kernels (by core: kr and kc; or by node: which of its choices) that take ``steps`` at ``cost``."""

    steps: int
    cost: float
    kernels: dict[Any, Any]


def front(choices: list[Choice]) -> list[Choice]:
    """Those for which no other is both as fast and as cheap, fastest first."""
    out: list[Choice] = []
    for c in sorted(choices, key=lambda c: (c.steps, c.cost)):
        if not out or c.cost < out[-1].cost:
            out.append(c)
    return out


def side_by_side(parts: list[list[Choice]]) -> list[Choice]:
    """Front of what runs at the same time: the slowest counts. For every time, the cheapest choice of each part."""
    out = []
    for steps in sorted({c.steps for part in parts for c in part}):
        fast = [[c for c in part if c.steps <= steps] for part in parts]
        if all(fast):
            best = [part[-1] for part in fast]
            out.append(Choice(max(c.steps for c in best), sum(c.cost for c in best),
                              {i: k for c in best for i, k in c.kernels.items()}))
    return front(out)


def one_after_another(parts: list[list[Choice]]) -> list[Choice]:
    """Front of what runs in sequence."""
    out = [Choice(0, 0, {})]
    for part in parts:
        out = front([Choice(a.steps + b.steps, a.cost + b.cost, a.kernels | b.kernels) for a in out for b in part])
    return out


def least(found: list[Choice], limit: int) -> Choice:
    """The least cost that takes ``limit`` steps; the fastest there is if none does."""
    return next((c for c in reversed(found) if c.steps <= limit), found[0])
