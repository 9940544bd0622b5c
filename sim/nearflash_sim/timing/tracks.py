"""What the compiled loops noted, as slices on named tracks (:class:`nearflash.timeline.Slice`)."""

from __future__ import annotations

import numpy as np
from nearflash.contract import DeviceConfig, cores
from nearflash.timeline import Slice, host_slices

from .loops.mlp import Mlp
from .loops.state import Arrays
from .loops.trace import BUS, CACHE, DIE, DRAIN, MLP, PARTS, POOLING

__all__ = ["slices_of", "unit_names"]


def unit_names(config: DeviceConfig) -> list[str]:
    """Tracks of the MLP's units, in the loops' order: a layer's cores, an interaction."""
    shapes, out = cores(config.mlp.graph), []
    for n in config.mlp.graph:
        mine = [c for c in shapes if c.node == n.name]
        out += [f"mlp.{n.name}.{i}" for i in range(len(mine))] if len(mine) > 1 else [f"mlp.{n.name}"] * len(mine)
        if n.kind in ("dot", "mul"):
            out.append(f"mlp.{n.name}")
    return out


def slices_of(config: DeviceConfig, a: Arrays, m: Mlp, submitted: np.ndarray, completed: np.ndarray, depth: int
              ) -> list[Slice]:
    """All slices of a run."""
    units, planes = unit_names(config), config.flash.plane_names
    fixed = {POOLING: "pooling", DRAIN: "drain", CACHE: "cache"}
    out = host_slices(submitted.tolist(), completed.tolist(), depth)
    for s, trace in ((a.s[0], a.trace), (m.s[0], m.trace)):
        for kind, number, part, begin, end, table, sample in trace[: int(s["traced"])].tolist():
            if kind == DIE:
                track = f"channel{number // len(planes)}.{planes[number % len(planes)]}"
            elif kind == BUS:
                track = f"channel{number}.bus"
            else:
                track = units[number] if kind == MLP else fixed[kind]
            what = f"table {table} sample {sample}" if table >= 0 else f"{'group' if kind == MLP else 'sample'} {sample}"
            if table == len(a.table) - 1:
                what = "block"
            out.append(Slice(track, f"{PARTS[part]} {what}".strip(), begin, end))
    return out
