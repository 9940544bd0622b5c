"""The platform that components are elaborated for when their Verilog is for a compiled simulation, and its clocks."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Fragment, Signal
from amaranth.hdl._ir import RequirePosedge
from amaranth.hdl._mem import MemoryInstance

__all__ = ["FREE", "ModelPlatform", "assign_clocks", "block_domain", "elapsed"]

FREE = "sync"  # the domain of what is clocked in every cycle
ELAPSED_BITS = 32


class ModelPlatform:
    """``elapsed``: cycles that the next edge of the free clock stands for."""

    def __init__(self) -> None:
        self.elapsed = Signal(ELAPSED_BITS, init=1)


def elapsed(platform: Any) -> Signal | int:
    """Cycles that one clock edge stands for: what a component with ``model_clock = "free"`` counts by."""
    return platform.elapsed if isinstance(platform, ModelPlatform) else 1


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
