"""The same commands on a Verilated device, timed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nearflash.contract import Opcode
from nearflash.data.block_load import BlockLoad
from nearflash.data.block_traces import FLUSH, READ, TRIM, WRITE
from nearflash.runtime import Device
from nearflash.timeline import host_slices

from .simulator import Timeline

__all__ = ["Query", "measure"]

QUEUE = 2  # of block I/O, where there are three
OPCODES = {READ: Opcode.READ, WRITE: Opcode.WRITE, FLUSH: Opcode.FLUSH, TRIM: Opcode.DSM}


@dataclass(frozen=True)
class Query:
    """A command for :func:`measure`: LOOKUP without ``dense``, else INFER (float [samples, features], may have none)."""

    bags: Sequence[Any]
    dense: np.ndarray | None = None


def measure(device: Device, queries: Sequence[Query], depth: int, blocks: BlockLoad | None = None) -> Timeline:
    """Keep ``depth`` commands in flight until all ``queries`` are complete, and ``blocks`` meanwhile as the simulator does;
    cycles count from the first doorbell. The timeline of a device that was opened with ``observed`` has its slices."""
    if not device.backend.device.observed:
        return _measured(device, queries, depth, blocks)[0]
    with device.backend.timeline() as slices:
        timeline, start = _measured(device, queries, depth, blocks)
        timeline.slices += host_slices(timeline.submitted.tolist(), timeline.completed.tolist(), depth) + slices(start)
    return timeline


def _measured(device: Device, queries: Sequence[Query], depth: int, blocks: BlockLoad | None) -> tuple[Timeline, int]:
    """And the cycle of the first doorbell."""
    before, start = device.counters(), device.backend.cycles
    submitted, completed = (np.zeros(len(queries), np.int64) for _ in range(2))
    requests = _Requests(device, blocks or BlockLoad.none(), start)
    flying: dict[Any, int] = {}
    sent = 0
    while sent < len(queries) or flying or requests.flying or (not queries and requests.left):
        while sent < len(queries) and len(flying) < depth:
            q = queries[sent]
            submitted[sent] = device.backend.cycles - start
            ticket = device._query(Opcode.LOOKUP if q.dense is None else Opcode.INFER, q.dense, q.bags, None)
            flying[ticket.command] = sent
            sent += 1
        if flying or not queries:
            requests.send()
        for command in device.driver.wait_any([*flying, *requests.flying]):
            command.check()
            times, number = (completed, flying.pop(command)) if command in flying else requests.pop(command)
            times[number] = device.backend.cycles - start
            command.release()
    after = device.counters()
    counters = {k: after[k] - before[k] for k in after}
    return Timeline(submitted, completed, counters, block_submitted=requests.submitted[: requests.sent],
                    block_completed=requests.completed[: requests.sent]), start


class _Requests:
    """Block I/O, as many requests in flight as their depth."""

    def __init__(self, device: Device, load: BlockLoad, start: int):
        self.device, self.load, self.start = device, load, start
        self.submitted, self.completed = (np.zeros(len(load.first), np.int64) for _ in range(2))
        self.sent = 0
        self.flying: dict[Any, int] = {}

    @property
    def left(self) -> int:
        return len(self.load.first) - self.sent

    def send(self) -> None:
        driver, size = self.device.driver, self.device.config.lba_bytes
        while self.left and len(self.flying) < self.load.depth:
            kind, first, count = (int(v[self.sent]) for v in (self.load.kinds, self.load.first, self.load.count))
            what, fields, buffers = f"{OPCODES[kind].name.lower()} at {first}", {}, []
            if kind == TRIM:
                buffers = [driver.buffer(struct.pack("<IIQ", 0, count, first))]
                fields = {"prp1": buffers[0].address, "cdw11": 1 << 2}  # deallocate
            elif kind != FLUSH:
                buffers = [driver.buffer(count * size)]
                prp1, prp2, lists = driver.prp(buffers[0])
                buffers += lists
                fields = {"prp1": prp1, "prp2": prp2, "cdw10": first, "cdw12": count - 1}
            self.submitted[self.sent] = self.device.backend.cycles - self.start
            command = driver.submit(QUEUE, OPCODES[kind], what, buffers, nsid=1, **fields)
            self.flying[command] = self.sent
            self.sent += 1

    def pop(self, command: Any) -> tuple[np.ndarray, int]:
        """The request is complete: where its cycle goes."""
        return self.completed, self.flying.pop(command)
