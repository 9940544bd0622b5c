"""Block I/O beside a simulated device's queries: a trace's requests, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import DeviceConfig
from ..contract.reading import reading
from ..data.block_load import BlockLoad
from ..data.block_traces import KINDS, read_block_trace

__all__ = ["BlockIo"]


@dataclass(frozen=True)
class BlockIo:
    """Requests from ``source`` (for reports). ``scale``: of the trace's times, None where a number of requests is kept in
    flight instead."""

    source: str
    scale: float | None
    load: BlockLoad

    @classmethod
    def of_file(cls, path: Path, config: DeviceConfig, kept: int, depth: int | None, scale: float) -> BlockIo:
        """``kept``: logical blocks of the tables. Raises :class:`~nearflash.contract.DataError` naming the file, and the
        line where it is one's fault."""
        trace = read_block_trace(path)
        with reading(path):
            load = BlockLoad.of_trace(trace, config, depth, scale, kept)
            load.check(config, kept)
        return cls(path.name, scale if depth is None else None, load)

    def figures(self, config: DeviceConfig, submitted: np.ndarray, completed: np.ndarray) -> dict[str, Any]:
        """Of the requests that were sent, from the cycles (int64 [requests]) of a timeline; ``kinds``: of each kind that the
        load has. A request's latency begins when the host has it: with the trace's times that is before its doorbell, if the
        queue is full."""
        n, us = len(submitted), 1 / config.clock_mhz
        begin = submitted if self.load.times is None else self.load.times[:n]
        latency = (completed - begin) * us
        seconds = int(completed.max(initial=1) - begin.min(initial=0)) * us * 1e-6
        kinds = self.load.kinds
        of_kind = {name: (kinds == kind, latency[kinds[:n] == kind]) for kind, name in enumerate(KINDS)}
        moved = int(self.load.count[:n][self.load.moves[:n]].sum()) * config.lba_bytes
        return {
            "source": self.source, "time_scale": self.scale, "depth": self.load.depth, "requests_count": n,
            "requests_left_count": len(kinds) - n, "iops": n / seconds, "mb_per_second": moved / seconds / 1e6,
            "kinds": {name: {"requests_count": len(of), "requests_left_count": int(mine.sum()) - len(of),
                             **_latencies(of)} for name, (mine, of) in of_kind.items() if mine.any()}}


def _latencies(us: np.ndarray) -> dict[str, float | None]:
    """None where there is none."""
    return {f"latency_{name}_us": float(f(us)) if len(us) else None for name, f in
            (("mean", np.mean), ("p50", lambda v: np.percentile(v, 50)), ("p99", lambda v: np.percentile(v, 99)))}
