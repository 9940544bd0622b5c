"""Block I/O beside a simulated device's queries: a trace's READs, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import DeviceConfig
from ..contract.reading import reading
from ..data.block_traces import BlockLoad, read_block_trace

__all__ = ["BlockIo"]


@dataclass(frozen=True)
class BlockIo:
    """READs from ``source`` (for reports), of which ``writes`` WRITEs were left out. ``scale``: of the trace's times, None
    where a number of requests is kept in flight instead."""

    source: str
    writes: int
    scale: float | None
    load: BlockLoad

    @classmethod
    def of_file(cls, path: Path, config: DeviceConfig, depth: int | None, scale: float) -> BlockIo:
        """Raises :class:`~nearflash.contract.DataError` naming the file, and the line where it is one's fault."""
        trace = read_block_trace(path)
        with reading(path):
            load = BlockLoad.of_trace(trace, config, depth, scale)
            load.check(config)
        return cls(path.name, int((~trace["read"]).sum()), scale if depth is None else None, load)

    def figures(self, config: DeviceConfig, submitted: np.ndarray, completed: np.ndarray) -> dict[str, Any]:
        """Of the requests that were sent, from the cycles (int64 [requests]) of a timeline. A request's latency begins when
        the host has it: with the trace's times that is before its doorbell, if the queue is full."""
        n, us = len(submitted), 1 / config.clock_mhz
        begin = submitted if self.load.times is None else self.load.times[:n]
        latency = (completed - begin) * us
        seconds = int(completed.max(initial=1) - begin.min(initial=0)) * us * 1e-6
        blocks = int(self.load.count[:n].sum())
        return {
            "source": self.source, "time_scale": self.scale, "depth": self.load.depth, "requests_count": n,
            "requests_left_count": len(self.load.first) - n, "writes_left_out_count": self.writes, "blocks_count": blocks,
            "iops": n / seconds, "mb_per_second": blocks * config.lba_bytes / seconds / 1e6,
            **{f"latency_{name}_us": float(f(latency)) if n else None for name, f in
               (("mean", np.mean), ("p50", lambda v: np.percentile(v, 50)), ("p99", lambda v: np.percentile(v, 99)))}}
