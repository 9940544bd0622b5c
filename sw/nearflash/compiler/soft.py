"""Which kernels' rows multiply in LUTs where DSP slices are short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..contract import Core, Node, cores

__all__ = ["LEAST_LUTS", "with_lut_rows"]

LEAST_LUTS = 30  #: of a product of two 8-bit factors: three adders of ten bits


def with_lut_rows(graph: tuple[Node, ...], excess: int, slices: Callable[[Core], float]) -> tuple[Node, ...] | None:
    """``graph`` with the fewest products made of LUTs that free ``excess`` DSP slices; None where all are too few (a kernel
    keeps one row on slices). ``slices``: of a core.

    Exact: node after node, the fewest products for every number of slices freed.
    """
    found: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}  # by slices freed: products, rows of each node so far
    for node in graph:
        mine = [c for c in cores(graph) if c.node == node.name]
        now = sum(slices(c) for c in mine)
        joined: dict[int, tuple[int, tuple[int, ...]]] = {}
        for rows in range(min((c.kr for c in mine), default=1)):
            free = int(now - sum(slices(replace(c, lut_rows=rows)) for c in mine))
            for freed, (products, chosen) in found.items():
                way = products + rows * sum(c.kc for c in mine), (*chosen, rows)
                at = min(excess, freed + free)
                joined[at] = min(joined.get(at, way), way)
        found = joined
    if excess not in found:
        return None
    return tuple(replace(n, lut_rows=rows) for n, rows in zip(graph, found[excess][1], strict=True))
