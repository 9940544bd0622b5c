"""What a hand-off file says of a design."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...contract import DeviceConfig

__all__ = ["CONFIG", "PS_PORTS", "Hwh", "HwhClock", "HwhField", "HwhInterrupt", "HwhIp", "HwhRegister", "device_config"]

CONFIG = "CONFIG"  #: parameter of the device's block that holds its configuration, as JSON

#: Of each processing system: its interrupt inputs, in order, with the first GIC number of each run of eight lines
#: (UG585, "Shared Peripheral Interrupts"; UG1085, "System Interrupts").
PS_PORTS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "processing_system7": (("IRQ_F2P", (61, 84)),),
    "zynq_ultra_ps_e": (("pl_ps_irq0", (121,)), ("pl_ps_irq1", (136,))),
}
LINES = 8  # of a run


@dataclass(frozen=True)
class HwhField:
    """``width`` bits of a register from bit ``lsb`` on. ``access``: as IP-XACT says it ("read-only", "read-write",
    "write-only")."""

    name: str
    lsb: int
    width: int
    access: str
    doc: str


@dataclass(frozen=True)
class HwhRegister:
    """A register of ``bits`` bits at byte ``offset`` of its block."""

    name: str
    offset: int
    bits: int
    access: str
    doc: str
    fields: tuple[HwhField, ...]


@dataclass(frozen=True)
class HwhIp:
    """A block that the processors reach. ``name``: its path in the design, hierarchies joined by ``/``; ``interface``: the
    port that the range leads to; ``base``, ``size``: of that range, in bytes; ``memory``: plain memory, no registers."""

    name: str
    vlnv: str
    interface: str
    base: int
    size: int
    memory: bool
    parameters: Mapping[str, str]
    registers: tuple[HwhRegister, ...]


@dataclass(frozen=True)
class HwhClock:
    """A clock of the fabric. ``divisors``: of the PLL that it comes from; ``mhz``: what the vendor's tool computed, or None
    where the file doesn't say."""

    enabled: bool
    divisors: tuple[int, int]
    mhz: float | None


@dataclass(frozen=True)
class HwhInterrupt:
    """Input ``index`` of the interrupt controller ``controller`` (a path)."""

    controller: str
    index: int


@dataclass(frozen=True)
class Hwh:
    """A design. ``ps``: path of its processing system, of kind ``ps_kind`` (the vendor's name of it) with ``ps_parameters``;
    ``ips``: by path; ``clocks``: 0 to 3; ``controllers``: interrupt controllers that the processing system sees, with the
    GIC's number of their line; ``interrupts``: by pin, ``path/port``, those behind such a controller."""

    name: str
    ps: str
    ps_kind: str
    ps_parameters: Mapping[str, str]
    ips: Mapping[str, HwhIp]
    clocks: tuple[HwhClock, ...]
    controllers: Mapping[str, int] = field(default_factory=dict)
    interrupts: Mapping[str, HwhInterrupt] = field(default_factory=dict)


def device_config(parameters: Mapping[str, str]) -> DeviceConfig:
    """The configuration in the ``parameters`` of a device's block. Raises ``KeyError`` where there is none, and
    ``ValueError`` (:class:`~nearflash.contract.ConfigError` is one) for one that this version doesn't read."""
    return DeviceConfig.from_dict(json.loads(parameters[CONFIG]))
