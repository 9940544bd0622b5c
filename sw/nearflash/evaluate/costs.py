"""What the systems around a device cost: every constant of the cost models, its unit in its name, its source beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import ConfigError
from ..contract.reading import parse_toml, read_text, reading
from ..contract.typed import check_table

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Costs", "ScaleCosts"]


def _cost(value: Any, source: str) -> Any:
    return field(default=value, metadata={"source": source})


PAPER = "RM-SSD (HPCA 2022)"


@dataclass(frozen=True)
class _Stated:
    """Constants with a source each. Raises :class:`~nearflash.contract.ConfigError`."""

    def __post_init__(self) -> None:
        for f in fields(self):
            v = getattr(self, f.name)
            if f.name.endswith("_share") and not 0 <= v <= 1:
                raise ConfigError(f"costs.{f.name}", v, "must be from 0 to 1")
            if not isinstance(v, bool) and not f.name.endswith("_share") and not 1e-6 <= v <= 1e9:
                raise ConfigError(f"costs.{f.name}", v, "must be from 0.000001 to 1000000000")

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """The defaults with what a file says. Raises :class:`~nearflash.contract.ConfigError` naming file and field."""
        with reading(path):
            return cls(**check_table(cls, parse_toml(read_text(path), ConfigError), "", ConfigError))

    def rows(self) -> list[dict[str, Any]]:
        """Name, value and source of each, for reports; ``changed`` where it isn't the default."""
        return [{"cost": f.name, "value": getattr(self, f.name), "source": f.metadata["source"],
                 "changed": getattr(self, f.name) != f.default} for f in fields(self)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Costs(_Stated):
    """The defaults are the paper's where it states them; *assumed* are ours. Raises
    :class:`~nearflash.contract.ConfigError`."""

    # -- host reading through the file system
    read_miss_us: float = _cost(22.2, f"{PAPER}: 45,000 random 4 KB reads a second at depth 1")
    read_hit_us: float = _cost(1.5, "assumed: a read that the page cache answers")
    ssd_s_dram_share: float = _cost(0.25, f"{PAPER}: host DRAM for a quarter of the tables")
    ssd_m_dram_share: float = _cost(0.5, f"{PAPER}: for half of them")
    page_cache_warm: bool = _cost(True, "assumed: a page that is asked for the first time in a run is in the cache with the "
                                        "probability that any page is, its share of the tables")
    mmio_read_us: float = _cost(1.0, "assumed: a load from the device's memory, a round trip over PCIe")
    mmio_read_bytes: int = _cost(64, "assumed: bytes of such a load, a cache line")
    # -- host and device
    command_us: float = _cost(2.2, f"{PAPER}, derived: 22.2 us less the flash's 20: the I/O stack's share of a command")
    link_gb_per_s: float = _cost(3.2, "assumed: four lanes of PCIe 3.0, less the protocol")
    # -- RecSSD
    recssd_firmware_us: float = _cost(0.5, "assumed: the controller's processor finds and adds a vector")
    recssd_device_rows: int = _cost(1 << 20, "RecSSD (ASPLOS 2021): direct-mapped cache in the device")
    recssd_host_rows: int = _cost(2048, "assumed: rows of each table in the host's LRU cache")
    # -- RM-SSD's MLP engine in fp32
    initiation_interval: int = _cost(1, "assumed: cycles of a kernel step (the paper's II)")
    naive_kernel: int = _cost(16, "assumed: side of the kernel that every layer has without a search")
    onchip_mb: float = _cost(1.68, "XC7A200T: 365 block RAMs of 36 Kb; what does not fit is streamed, largest layers first")
    fpga_dram_gb_per_s: float = _cost(9.0, "assumed: DDR3-1600 x 64, 70 % of its peak")


@dataclass(frozen=True)
class ScaleCosts(_Stated):
    """Of a host with several devices; all assumed. A GB is 1e9 bytes. Raises :class:`~nearflash.contract.ConfigError`."""

    device_link_gb_per_s: float = _cost(3.2, "assumed: four lanes of PCIe 3.0, less the protocol, each way")
    host_link_gb_per_s: float = _cost(12.8, "assumed: sixteen lanes of PCIe 3.0, less the protocol, for all devices "
                                            "together, each way")
    combine_gb_per_s: float = _cost(10.0, "assumed: one thread reads partial sums and adds them up, bytes read a second")
    submit_us: float = _cost(0.2, "assumed: the host writes a queue entry and rings the doorbell, device after device")
