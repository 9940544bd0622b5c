"""What the simulator of time can add to a device and the gateware does not have yet: *modelled, not in RTL*."""

from __future__ import annotations

from dataclasses import dataclass

from .config import DeviceConfig
from .errors import ConfigError
from .row_cache import LARGEST_MIB, MIB

__all__ = ["CACHE_UNITS", "Modelled", "cached_pages"]

CACHE_UNITS = ("row", "page")  # what a line of a cache holds


@dataclass(frozen=True)
class Modelled:
    """Additions to a simulated device, none of which the RTL has. All are off by default. Raises :class:`ConfigError`.

    ``page_cache_mib`` (MiB of the controller's DRAM; 0: off): pages that flash gave stay there, by the rule of the row cache
    (:class:`~nearflash.contract.RowCacheConfig`, whose ways it has). Whole pages cross the channel buses for it. Not beside
    a row cache.
    """

    page_cache_mib: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.page_cache_mib <= LARGEST_MIB:
            raise ConfigError("page_cache_mib", self.page_cache_mib, f"must be from 0 (off) to {LARGEST_MIB:g} MiB")

    @property
    def any(self) -> bool:
        """Whether something is on, so that the figures are not of a device that the gateware could be."""
        return self.page_cache_mib > 0

    def sets(self, config: DeviceConfig) -> int:
        """Sets of the cache of pages, a power of two; 0 where it is off. Raises :class:`ConfigError` for one of less than
        one set, and beside a row cache."""
        if not self.page_cache_mib:
            return 0
        if config.row_cache.lines:
            raise ConfigError("page_cache_mib", self.page_cache_mib, "must be 0 (off) on a device with a row cache")
        line, ways = config.flash.page_bytes, config.row_cache.ways
        sets = int(self.page_cache_mib * MIB) // (line * ways)
        if not sets:
            raise ConfigError("page_cache_mib", self.page_cache_mib, f"must hold at least {ways} lines of {line} bytes")
        return 1 << (sets.bit_length() - 1)

    def cache_bytes(self, config: DeviceConfig) -> int:
        """What the cache of pages holds at most: ``page_cache_mib``, rounded down to a power of two of sets."""
        return self.sets(config) * config.row_cache.ways * config.flash.page_bytes


def cached_pages(mib: float, unit: str) -> float:
    """``mib`` for a cache of pages, 0 for a row cache, which is no addition but a device's. Raises :class:`ConfigError` for
    another ``unit``."""
    if unit not in CACHE_UNITS:
        raise ConfigError("cache_unit", unit, f"must be one of {CACHE_UNITS}")
    return mib if unit == "page" else 0.0
