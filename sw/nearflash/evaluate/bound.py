"""What reading each distinct row once would be worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .costs import Costs
from .traffic import Traffic

__all__ = ["EachRowOnce"]


@dataclass(frozen=True)
class EachRowOnce:
    """Lookups alone, of rows of one length, us each: of an SSD-S whose page cache holds the repeats and nothing else
    (``ssd_s_us``); of a device that reads each distinct row once (``once_us``), or a row for every lookup (``every_us``),
    all dies and buses evenly loaded, without a beginning and an end. ``distinct_share``: distinct rows per lookup."""

    distinct_share: float
    ssd_s_us: float
    once_us: float
    every_us: float

    @classmethod
    def of(cls, t: Traffic, costs: Costs) -> EachRowOnce:
        """Of ``t``'s lookups on its device's flash."""
        share = len(np.unique(t.row)) / len(t.row)
        every = t.config.ceiling_cycles_per_lookup(int(t.nbytes[0])) / t.config.clock_mhz
        return cls(share, share * costs.read_miss_us + (1 - share) * costs.read_hit_us, share * every, every)

    @property
    def ratio(self) -> float:
        """Of the device over SSD-S."""
        return self.ssd_s_us / self.once_us
