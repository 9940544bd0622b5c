"""The same commands on a Verilated device, timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nearflash.contract import Opcode
from nearflash.runtime import Device
from nearflash.timeline import host_slices

from .simulator import Timeline

__all__ = ["Query", "measure"]


@dataclass(frozen=True)
class Query:
    """A command for :func:`measure`: LOOKUP without ``dense``, else INFER (float [samples, features], may have none)."""

    bags: Sequence[Any]
    dense: np.ndarray | None = None


def measure(device: Device, queries: Sequence[Query], depth: int) -> Timeline:
    """Keep ``depth`` commands in flight until all ``queries`` are complete; cycles count from the first doorbell. The
    timeline of a device that was opened with ``observed`` has its slices."""
    if not device.backend.device.observed:
        return _measured(device, queries, depth)[0]
    with device.backend.timeline() as slices:
        timeline, start = _measured(device, queries, depth)
        timeline.slices += host_slices(timeline.submitted.tolist(), timeline.completed.tolist(), depth) + slices(start)
    return timeline


def _measured(device: Device, queries: Sequence[Query], depth: int) -> tuple[Timeline, int]:
    """And the cycle of the first doorbell."""
    before, start = device.counters(), device.backend.cycles
    submitted = np.zeros(len(queries), np.int64)
    completed = np.zeros(len(queries), np.int64)
    flying: dict[Any, int] = {}
    sent = 0
    while sent < len(queries) or flying:
        while sent < len(queries) and len(flying) < depth:
            q = queries[sent]
            submitted[sent] = device.backend.cycles - start
            ticket = device._query(Opcode.LOOKUP if q.dense is None else Opcode.INFER, q.dense, q.bags, None)
            flying[ticket.command] = sent
            sent += 1
        for command in device.driver.wait_any(flying):
            command.check()
            completed[flying.pop(command)] = device.backend.cycles - start
            command.release()
    after = device.counters()
    return Timeline(submitted, completed, {k: after[k] - before[k] for k in after}), start
