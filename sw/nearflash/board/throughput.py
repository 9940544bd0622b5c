"""Where the time of an inference goes: device, quantising and packing, copies, cache maintenance, Python.

As FINN's throughput test: each part is timed in the run itself. Wall time on the virtual board is the simulator's; there
only the device's cycles mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..runtime.device import Device

__all__ = ["Throughput", "measure"]


@dataclass(frozen=True)
class Throughput:
    """Seconds by part of a run of ``queries`` queries; ``total_s`` is the wall time, ``python_s`` what is left of it.
    ``device_cycles``: from the first doorbell to the last answer."""

    queries: int
    total_s: float
    pack_s: float
    copy_s: float
    sync_s: float
    wait_s: float
    python_s: float
    device_cycles: int


class _Clock:
    """Wall time of calls to some methods, without what they call among themselves."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[list[float]] = []

    def wrap(self, part: str, function: Any) -> Any:
        def timed(*args: Any, **kw: Any) -> Any:
            self._running.append([time.perf_counter(), 0.0])
            try:
                return function(*args, **kw)
            finally:
                start, inner = self._running.pop()
                took = time.perf_counter() - start
                self.seconds[part] = self.seconds.get(part, 0.0) + took - inner
                if self._running:
                    self._running[-1][1] += took

        return timed


@contextmanager
def _timed(clock: _Clock, device: Device) -> Iterator[None]:
    from . import backend as module

    backend = device.backend
    places = [(device, "_normal", "pack"), (device, "_send", "pack"), (backend, "host_read", "copy"),
              (backend, "host_write", "copy"), (backend, "wait_irq", "wait"), (backend, "idle", "wait")]
    before = [(o, name, getattr(o, name)) for o, name, _ in places]
    sync = module._synchronise
    try:
        for o, name, part in places:
            setattr(o, name, clock.wrap(part, getattr(o, name)))
        module._synchronise = clock.wrap("sync", sync)
        yield
    finally:
        for o, name, _ in before:
            delattr(o, name)
        module._synchronise = sync


def measure(device: Device, dense: Any, bags: Any, batch: int | None = None) -> Throughput:
    """Run the queries (as :meth:`Device.infer`) and say where the time went."""
    clock = _Clock()
    first = device.backend.cycles
    with _timed(clock, device):
        start = time.perf_counter()
        answers = device.infer(dense, bags, batch=batch)
        total = time.perf_counter() - start
    part = {name: clock.seconds.get(name, 0.0) for name in ("pack", "copy", "sync", "wait")}
    return Throughput(len(answers), total, part["pack"], part["copy"], part["sync"], part["wait"],
                      total - sum(part.values()), device.backend.cycles - first)
