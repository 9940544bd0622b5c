"""The roofline of the tensor engine: multiplications and memory bound what work can reach, and how near it comes.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..contract.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Work", "draw_roofline"]


@dataclass(frozen=True)
class Work:
    """Work of one kind: ``macs``, and bytes that move, in ``cycles``, of which it takes ``bound`` at least."""

    name: str
    macs: int
    read_bytes: int
    written_bytes: int
    cycles: int
    bound: int


def draw_roofline(work: Sequence[Work], macs_per_cycle: int, beat_bytes: int) -> Figure:
    """MACs a cycle over MACs a byte, below the roofs of ``macs_per_cycle`` and of a memory that reads and writes
    ``beat_bytes`` a cycle each; beside it the cycles of all work, and how many of them are bound.

    Raises:
        DataError: nothing to draw, or work without cycles.
    """
    from matplotlib.figure import Figure

    if not work or any(w.cycles <= 0 for w in work):
        raise DataError("work", [w.name for w in work if w.cycles <= 0], "must be at least one, each of at least a cycle")
    figure = Figure(figsize=(10, 4), layout="constrained")
    roof, bars = figure.subplots(1, 2, width_ratios=[1.3, 1])
    multiplying = [w for w in work if w.macs]
    intensity = [w.macs / max(w.read_bytes, w.written_bytes) for w in multiplying]
    reached = [w.macs / w.cycles for w in multiplying]
    x = np.geomspace(min([*intensity, 1]) / 2, max([*intensity, macs_per_cycle / beat_bytes]) * 2, 200)
    roof.loglog(x, np.minimum(macs_per_cycle, x * beat_bytes), color="black", linewidth=1.2)
    for w, a, y in zip(multiplying, intensity, reached, strict=True):
        roof.plot(a, y, "o", label=w.name)
    roof.set(xlabel="MACs / byte (of reads or writes, whichever are more)", ylabel="MACs / cycle")
    roof.set_title(f"{macs_per_cycle} multipliers, {beat_bytes} bytes a cycle each way", fontsize=10, loc="left")
    roof.grid(alpha=0.3)
    if multiplying:
        roof.legend(fontsize=7, frameon=False)

    ordered = sorted(work, key=lambda w: w.cycles)
    names = [w.name for w in ordered]
    bars.barh(names, [w.cycles for w in ordered], color="0.8", label="cycles")
    bars.barh(names, [w.bound for w in ordered], color="tab:blue", height=0.4, label="bound")
    bars.set(xlabel="cycles")
    bars.tick_params(axis="y", labelsize=7)
    bars.legend(fontsize=8, frameon=False)
    for axes in (roof, bars):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
