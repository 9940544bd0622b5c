"""What the simulator of time can add to a device and the gateware does not have yet: *modelled, not in RTL*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import DeviceConfig
from .errors import ConfigError
from .table import TableSpec

__all__ = ["CACHE_UNITS", "CACHE_WAYS", "Modelled"]

CACHE_UNITS = ("row", "page")
CACHE_WAYS = 8  # lines of a set
LARGEST_CACHE = 4096.0  # MiB
MIB = 1 << 20


@dataclass(frozen=True)
class Modelled:
    """Additions to a simulated device, none of which the RTL has. All are off by default. Raises :class:`ConfigError`.

    ``cache_mib`` (MiB of the controller's DRAM; 0: off): rows that flash gave stay there, in sets of :data:`CACHE_WAYS`
    lines, the least recently used of which gives way to a row that was asked for more often (TinyLFU: Einziger, Friedman
    and Manes, ACM Transactions on Storage 13(4), 2017). ``cache_unit``: "row", a line for each vector that crossed a channel
    bus, or "page", in which case whole pages cross it and a line holds one.
    """

    cache_mib: float = 0.0
    cache_unit: str = "row"

    def __post_init__(self) -> None:
        for ok, name, limit in (
                (0 <= self.cache_mib <= LARGEST_CACHE, "cache_mib", f"must be from 0 (off) to {LARGEST_CACHE:g} MiB"),
                (self.cache_unit in CACHE_UNITS, "cache_unit", f"must be one of {CACHE_UNITS}")):
            if not ok:
                raise ConfigError(name, getattr(self, name), limit)

    @property
    def any(self) -> bool:
        """Whether something is on, so that the figures are not of a device that the gateware could be."""
        return self.cache_mib > 0

    def sets(self, config: DeviceConfig, tables: Sequence[TableSpec]) -> int:
        """Sets of the cache, a power of two, for lines that hold any row of ``tables``; 0 where it is off. Raises
        :class:`ConfigError` for a cache of less than one set."""
        if not self.cache_mib:
            return 0
        line = self._line(config, tables)
        sets = int(self.cache_mib * MIB) // (line * CACHE_WAYS)
        if not sets:
            raise ConfigError("cache_mib", self.cache_mib, f"must hold at least {CACHE_WAYS} lines of {line} bytes")
        return 1 << (sets.bit_length() - 1)

    def cache_bytes(self, config: DeviceConfig, tables: Sequence[TableSpec]) -> int:
        """What the cache holds at most: ``cache_mib``, rounded down to a power of two of sets."""
        return self.sets(config, tables) * CACHE_WAYS * self._line(config, tables)

    def _line(self, config: DeviceConfig, tables: Sequence[TableSpec]) -> int:
        """Bytes of a line: a page, or the widest row."""
        if self.cache_unit == "page":
            return config.flash.page_bytes
        return max((t.stride_beats(config) for t in tables), default=1) * config.beat_bytes
