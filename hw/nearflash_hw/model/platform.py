"""The platform that components are elaborated for when their Verilog is for a compiled simulation, and its clocks."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Fragment, Module, Signal, Value
from amaranth.hdl._ir import RequirePosedge
from amaranth.hdl._mem import MemoryInstance

__all__ = ["FREE", "ModelPlatform", "Observation", "assign_clocks", "block_domain", "elapsed", "observe"]

FREE = "sync"  # the domain of what is clocked in every cycle
ELAPSED_BITS = 32
OBSERVED_BITS = 64  # of an observation


class Observation(NamedTuple):
    """What a component lets the simulation see: ``fields`` (name, bits) of ``signal``, the first in its low bits. The first
    component of its ``kind`` to be elaborated is number 0, as the first channel is, and its first die."""

    kind: str
    fields: tuple[tuple[str, int], ...]
    signal: Signal


class ModelPlatform:
    """``elapsed``: cycles that the next edge of the free clock stands for. ``observed``: what components let the simulation
    see, or None, in which case they add nothing for it."""

    def __init__(self, observed: bool = False) -> None:
        self.elapsed = Signal(ELAPSED_BITS, init=1)
        self.observed: list[Observation] | None = [] if observed else None


def elapsed(platform: Any) -> Signal | int:
    """Cycles that one clock edge stands for: what a component with ``model_clock = "free"`` counts by."""
    return platform.elapsed if isinstance(platform, ModelPlatform) else 1


def observe(m: Module, platform: Any, kind: str, **values: Any) -> None:
    """Let a simulation with a timeline see ``values`` (64 bits in all); in any other, and in hardware, nothing is added."""
    if not isinstance(platform, ModelPlatform) or platform.observed is None:
        return
    seen = [Value.cast(v) for v in values.values()]
    signal = Signal(sum(len(v) for v in seen), name=f"observed_{kind}")
    if len(signal) > OBSERVED_BITS:
        raise ValueError(f"observed {kind}: {len(signal)} bits, must be at most {OBSERVED_BITS}")
    m.d.comb += signal.eq(Cat(seen))
    platform.observed.append(Observation(kind, tuple((n, len(v)) for n, v in zip(values, seen, strict=True)), signal))


def block_domain(block: int) -> str:
    return f"block{block}"


def assign_clocks(fragment: Fragment) -> int:
    """Give every block below (and with) ``fragment`` a domain of its own in place of "sync"; returns how many there are."""
    return _assign(fragment, FREE, 0, "own")


def _assign(fragment: Fragment, domain: str, count: int, wanted: str | None) -> int:
    """``wanted``: the ``model_clock`` of the fragment, None: as its component says."""
    for component in fragment.origins or ():
        wanted = wanted or getattr(component, "model_clock", None)
    if wanted == "own":
        domain, count = block_domain(count), count + 1
    elif wanted == "free":
        domain = FREE
    elif wanted is not None:
        raise ValueError(f"model_clock = {wanted!r}: must be 'own' or 'free'")
    # The names alone: what a statement does has nothing to do with the domain it is in.
    fragment.statements = {domain if d == "sync" else d: s for d, s in fragment.statements.items()}
    if isinstance(fragment, MemoryInstance):
        for port in (*fragment._read_ports, *fragment._write_ports):
            if port._domain == "sync":
                port._domain = domain
    elif isinstance(fragment, RequirePosedge) and fragment._domain == "sync":
        fragment._domain = domain
    for sub, _, _ in fragment.subfragments:
        count = _assign(sub, domain, count, None)
    return count
