"""The row cache's configuration: rows that flash gave, kept in the controller's DRAM, their tags on chip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import DeviceConfig

__all__ = ["RowCacheConfig", "folded", "line_key", "with_row_cache"]

MOST_LINES = 1 << 20
MOST_WAYS = 16
MIB = 1 << 20
LARGEST_MIB = 4096.0


@dataclass(frozen=True)
class RowCacheConfig:
    """Row cache in the device's DRAM, in sets of ``ways`` lines. No lines: no cache.

    A row of more than ``line_bytes`` as it lies on flash (whole beats) is read from flash each time.
    """

    lines: int = 0  #: rows it holds
    ways: int = 8  #: lines of a set, all compared at once
    line_bytes: int = 128  #: the longest row that is kept

    @property
    def sets(self) -> int:
        """Each of ``ways`` lines."""
        return self.lines // self.ways

    @property
    def dram_bytes(self) -> int:
        """What the lines take of the device's DRAM."""
        return self.lines * self.line_bytes

    def validate(self, beat_bytes: int, page_bytes: int) -> None:
        """Raises :class:`ConfigError`."""
        def need(ok: bool, name: str, limit: str) -> None:
            if not ok:
                raise ConfigError(f"row_cache.{name}", getattr(self, name), f"must be {limit}")

        def pow2(v: int) -> bool:
            return v > 0 and v & (v - 1) == 0

        if not self.lines:
            return
        need(pow2(self.ways) and self.ways <= MOST_WAYS, "ways", f"a power of two of at most {MOST_WAYS}")
        need(pow2(self.lines) and 2 * self.ways <= self.lines <= MOST_LINES, "lines",
             f"0 (no cache) or a power of two from two sets ({2 * self.ways}) to {MOST_LINES}")
        need(pow2(self.line_bytes) and beat_bytes <= self.line_bytes <= page_bytes, "line_bytes",
             f"a power of two from beat_bytes ({beat_bytes}) to flash.page_bytes ({page_bytes})")


def line_key(config: DeviceConfig, page: Any, column: Any) -> Any:
    """What the cache knows the row by that lies at beat ``column`` of physical page ``page``: a number of its own, below
    total_pages x page_beats. The lowest log2(sets) bits are the row's set, the others its tag. Of ints, of int64 arrays and
    of Amaranth values alike.

    The place is counted in lines from the first page on, so neighbours are in sets of their own, and then :func:`folded`. On
    top is the beat of a line at which a row begins, for rows shorter than a line.
    """
    in_line = (config.row_cache.line_bytes // config.beat_bytes).bit_length() - 1  # bits of a beat's number
    in_page = config.page_beats.bit_length() - 1
    bits = config.flash.ppn_bits + in_page
    place = column >> in_line | page << in_page - in_line | (column & (1 << in_line) - 1) << bits - in_line
    return folded(place, bits, config.row_cache.sets)


def folded(number: Any, bits: int, sets: int) -> Any:
    """``number`` of ``bits`` bits, those above the lowest log2(``sets``) folded onto these by exclusive or: so hot places a
    power of two apart are in different sets. Without sets as it is."""
    step = sets.bit_length() - 1
    out = number
    for k in range(step, bits, step):
        out = out ^ (number >> k & (1 << step) - 1)
    return out


def with_row_cache(config: DeviceConfig, mib: float, row_bytes: int) -> DeviceConfig:
    """``config`` with a row cache of at most ``mib`` MiB (a power of two of lines; 0: none) for rows of up to ``row_bytes``
    as they lie on flash. Raises :class:`ConfigError` for a size that is out of range or holds no two sets."""
    if not 0 <= mib <= LARGEST_MIB:
        raise ConfigError("cache_mib", mib, f"must be from 0 (off) to {LARGEST_MIB:g} MiB")
    if not mib:
        return replace(config, row_cache=RowCacheConfig())
    values: dict[str, Any] = {"line_bytes": 1 << (max(row_bytes, config.beat_bytes) - 1).bit_length()}
    lines = int(mib * MIB) // values["line_bytes"]
    ways = RowCacheConfig.ways
    most = MOST_LINES * values["line_bytes"] / MIB
    if mib >= 2 * most:  # what is above is no power of two of lines
        raise ConfigError("cache_mib", mib, f"must be at most {most:g} MiB with lines of {values['line_bytes']} bytes")
    if lines < 2 * ways:
        raise ConfigError("cache_mib", mib, f"must hold at least {2 * ways} lines of {values['line_bytes']} bytes")
    return replace(config, row_cache=RowCacheConfig(1 << (lines.bit_length() - 1), ways, **values))
