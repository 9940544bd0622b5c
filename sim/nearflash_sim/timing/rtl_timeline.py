"""The timeline of a Verilated device, on the simulator's tracks, from what its parts let the simulation see."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from nearflash.contract import DeviceConfig
from nearflash.timeline import Slice

from .loops.trace import ARRAY, COMMAND, IN, OUT, PARTS
from .tracks import unit_names

if TYPE_CHECKING:
    from ..backend import SimBackend

__all__ = ["recording", "slices_seen"]

Layout = Sequence[tuple[str, Sequence[tuple[str, int]]]]
Values = dict[str, int]


class _Seen:
    """An observation's values over time; all zero at first."""

    def __init__(self, fields: Sequence[tuple[str, int]], changes: np.ndarray, end: int):
        self.fields, self.end = fields, end
        self.cycles = changes[:, 0].tolist()
        self.values = [self._decoded(int(v)) for v in changes[:, 1]]

    def _decoded(self, value: int) -> Values:
        out, at = {}, 0
        for name, bits in self.fields:
            out[name] = value >> at & ((1 << bits) - 1)
            at += bits
        return out

    def spans(self) -> Iterator[tuple[int, int, Values]]:
        """(first cycle, cycle after the last, values)."""
        yield from zip(self.cycles, [*self.cycles[1:], self.end][: len(self.cycles)], self.values, strict=True)

    def pulses(self, name: str) -> list[tuple[int, Values]]:
        """Every cycle in which ``name`` is high: it may be so in cycles that follow each other, each an event."""
        return [(cycle, v) for first, last, v in self.spans() if v[name] for cycle in range(first, last)]

    def runs(self, name: str) -> list[tuple[int, int, Values]]:
        """(first cycle, cycle after the last, values in the first) of each time for which ``name`` is high."""
        out: list[tuple[int, int, Values]] = []
        for first, last, v in self.spans():
            if v[name] and out and out[-1][1] == first:
                out[-1] = out[-1][0], last, out[-1][2]
            elif v[name]:
                out.append((first, last, v))
        return out


def slices_seen(config: DeviceConfig, layout: Layout, changes: np.ndarray, end: int) -> list[Slice]:
    """Slices of channels, dies, pooling, drain and the MLP's units, in cycles since the last reset, until cycle ``end``,
    from ``changes`` as :meth:`~nearflash_sim.verilated.VerilatedDevice.observe` gives them. The first of them must be of an
    idle device; what has not ended by then is left out. Samples and groups are numbered from 0; what a die does for block
    I/O is called ``block``."""
    seen: dict[str, list[_Seen]] = {}
    for number, (kind, fields) in enumerate(layout):
        seen.setdefault(kind, []).append(_Seen(fields, changes[changes[:, 0] == number, 1:], end))
    drain, slots = seen["drain"][0], config.lookup.sample_slots
    drained = drain.pulses("begin")
    begins, first_slot = [cycle for cycle, _ in drained], drained[0][1]["slot"] if drained else 0

    def sample_in(slot: int, cycle: int) -> int:
        """Slots are taken in turn and given back by drains in turn: the oldest sample not drained that may have this one."""
        oldest = bisect_left(begins, cycle)
        return oldest + (slot - first_slot - oldest) % slots

    issued: dict[int, list[tuple[int, str]]] = {}
    for cycle, v in seen["lookup"][0].pulses("issue"):
        issued.setdefault(v["tag"], []).append((cycle, f"table {v['table']} sample {sample_in(v['slot'], cycle)}"))

    def read(v: Values, cycle: int) -> str:
        """What a die works on."""
        if v["block"]:
            return "block"
        of_tag = issued[v["tag"]]
        return of_tag[bisect_right(of_tag, cycle, key=lambda i: i[0]) - 1][1]

    out: list[Slice] = []
    planes = config.flash.plane_names
    for c, bus in enumerate(seen["bus"]):
        for first, last, v in bus.runs("busy"):
            part = PARTS[COMMAND if v["command"] else IN if v["moves_in"] else OUT]
            name = f"{part} {read(v, first)}"
            for track in (f"channel{c}.bus", f"channel{c}.{planes[v['die'] if len(planes) > 1 else 0]}"):
                out.append(Slice(track, name, first - 1, last))  # granted in the cycle before
    for k, die in enumerate(seen["die"]):
        for first, last, v in die.runs("array"):
            track = f"channel{k // len(planes)}.{planes[k % len(planes)]}"
            out.append(Slice(track, f"{PARTS[ARRAY]} {read(v, first)}", first, last))
    row = seen["row"][0]
    for (load, v), (done, _) in zip(row.pulses("load"), row.pulses("done"), strict=False):
        out.append(Slice("pooling", f"table {v['table']} sample {sample_in(v['slot'], load)}", load + 1, done + 1))
    out += _paired(drain, "drain", "sample")
    cores, interactions = iter(seen.get("core", [])), iter(seen.get("interaction", []))
    fc = {n.name for n in config.mlp.graph if n.kind == "fc"}
    for name in unit_names(config):
        out += _paired(next(cores if name.split(".")[1] in fc else interactions), name, "group")
    return out


def _paired(seen: _Seen, track: str, what: str) -> list[Slice]:
    """From every ``begin`` to the ``end`` of its number."""
    return [Slice(track, f"{what} {i}", first, last + 1) for i, ((first, _), (last, _)) in enumerate(
        zip(seen.pulses("begin"), seen.pulses("end"), strict=False))]


@contextmanager
def recording(backend: SimBackend) -> Iterator[Callable[[int], list[Slice]]]:
    """Observe an idle device while the block runs. Yields a function that gives its slices so far, in cycles from the given
    one of :attr:`SimBackend.cycles` on. Raises :class:`~nearflash.contract.NearflashError` for a device that wasn't opened
    with ``observed``."""
    device = backend.device
    with device.observe() as take:
        taken: list[np.ndarray] = []

        def slices(origin: int) -> list[Slice]:
            taken.append(take())
            shift = origin - backend.reset_cycle
            found = slices_seen(backend.config, device.observed, np.concatenate(taken), backend.cycles - backend.reset_cycle)
            return [s._replace(begin=s.begin - shift, end=s.end - shift) for s in found]

        yield slices
