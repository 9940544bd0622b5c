"""What a tool says of a unit's timing, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Register", "Step", "Timing"]


@dataclass(frozen=True)
class Step:
    """One delay of a path. ``kind``: clk-to-q, logic, routing or setup; ``at``: the cell and port whose output this is, or
    the net."""

    kind: str
    ns: float
    at: str


@dataclass(frozen=True)
class Register:
    """A register that paths end in: when its last input arrives after the clock edge, set-up time not included."""

    name: str
    arrival_ns: float


@dataclass(frozen=True)
class Timing:
    """Timing of one unit, ``placed`` and routed or, with guesses for its nets, not yet.

    ``part``: what it was placed on; ``stand_in``: that is not the part it is meant for; ``fmax_mhz``: of the clock;
    ``path``: the critical path in order; ``levels``: look-up tables and other cells on it, hops along a carry chain not
    counted. ``fmax_logic_mhz``: Fmax without the registers that a path through a multiplier ends in (and without set-up
    times), or None where nothing is to be taken out; ``registers``: where the latest other paths end, latest first.
    ``used``, ``available``: cells by type, those of the harness included; ``harness_ff``: flip-flops that are the harness's.
    ``caveat``: what the tool's timing leaves out, to be said beside every figure.
    """

    tool: str
    version: str
    part: str
    stand_in: bool
    fmax_mhz: float
    path: tuple[Step, ...]
    levels: int
    used: Mapping[str, int]
    available: Mapping[str, int] = field(default_factory=dict)
    fmax_logic_mhz: float | None = None
    registers: tuple[Register, ...] = ()
    harness_ff: int = 0
    placed: bool = True
    caveat: str = ""

    @property
    def logic_ns(self) -> float:
        return sum(s.ns for s in self.path if s.kind != "routing")

    @property
    def routing_ns(self) -> float:
        return sum(s.ns for s in self.path if s.kind == "routing")

    def slack_ns(self, mhz: float) -> float:
        """Of the critical path, against a clock of ``mhz``."""
        return 1e3 / mhz - 1e3 / self.fmax_mhz

    def to_dict(self, mhz: float) -> dict[str, Any]:
        """For JSON: every number with its unit in its name; ``mhz``: the clock that slack is against."""
        return {
            "tool": self.tool, "version": self.version, "part": self.part, "stand_in": self.stand_in, "placed": self.placed,
            "fmax_mhz": self.fmax_mhz, "fmax_logic_mhz": self.fmax_logic_mhz, "clock_mhz": mhz,
            "slack_ns": self.slack_ns(mhz), "levels_count": self.levels, "logic_ns": self.logic_ns,
            "routing_ns": self.routing_ns, "path": [{"kind": s.kind, "delay_ns": s.ns, "at": s.at} for s in self.path],
            "registers": [{"name": r.name, "arrival_ns": r.arrival_ns} for r in self.registers],
            "used": {f"{k}_count": v for k, v in self.used.items()},
            "available": {f"{k}_count": v for k, v in self.available.items()}, "harness_ff_count": self.harness_ff,
            "caveat": self.caveat,
        }
