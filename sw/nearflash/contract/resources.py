"""FPGA resources: what estimates, syntheses and plans count."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields

from .boards import Part

__all__ = ["RESOURCE_NAMES", "ControlSets", "Resources"]


@dataclass(frozen=True)
class Resources:
    """``lut``: 6-input look-up tables, those used as memory included; ``lutram``: of these, the ones used as memory or
    shift registers; ``ff``: flip-flops; ``bram18``: halves of a 36 Kb block RAM; ``uram``: UltraRAMs; ``dsp``: DSP48 slices;
    ``carry``: bits of carry chain (a CARRY4 has 4)."""

    lut: float = 0
    lutram: float = 0
    ff: float = 0
    bram18: float = 0
    uram: float = 0
    dsp: float = 0
    carry: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*map(operator.add, _counts(self), _counts(other)))

    def __sub__(self, other: Resources) -> Resources:
        return Resources(*map(operator.sub, _counts(self), _counts(other)))

    @property
    def bram36(self) -> float:
        """Block RAMs of 36 Kb, halves counted as 0.5."""
        return self.bram18 / 2

    def shares(self, part: Part) -> dict[str, float]:
        """Of each resource that ``part`` has: the share of it that this is."""
        have = {"lut": part.lut, "ff": part.ff, "bram18": 2 * part.bram36, "uram": part.uram, "dsp": part.dsp}
        return {k: getattr(self, k) / n for k, n in have.items() if n}


@dataclass(frozen=True)
class ControlSets:
    """``count``: different (clock, enable, set or reset) of a design's flip-flops, of which those of one slice must have the
    same; ``single``: how many of them belong to one flip-flop alone."""

    count: int = 0
    single: int = 0


RESOURCE_NAMES = tuple(f.name for f in fields(Resources))
_counts = operator.attrgetter(*RESOURCE_NAMES)  # dataclasses.astuple copies deeply: most of a kernel search's time
