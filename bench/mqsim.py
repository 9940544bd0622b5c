"""Latency of random 4 KB reads under MQSim's parameters, by reads in flight.

Lookups of a table whose rows are 4 KB. ``lookup.tags`` bounds the reads in flight, and that many always are until the last
few: by Little's law a read takes the time in which ``tags`` of them end. The references are MQSim's, with an ideal mapping.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place

from .report import Rows, progress, show_rows

__all__ = ["measure"]

REFERENCE_US = {64: 283.0, 256: 1024.0}
ROWS, DIM = 60_000, 1024
READS = 4000


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("mqsim", total=len(REFERENCE_US), note="compiling the loops")
        for depth, reference in REFERENCE_US.items():
            base = DeviceConfig.preset("mqsim")
            config = replace(base, lookup=replace(base.lookup, tags=depth))
            reads = READS // (2 if quick else 1)
            rows = np.random.default_rng(depth).integers(0, ROWS, reads)
            timeline = Simulator(config, place(config, [TableSpec(ROWS, DIM)])).run([Batch.of([(rows, np.array([0]))])])
            latency = depth * int(timeline.completed[-1]) / config.clock_mhz / reads
            out.append({"in_flight": depth, "reads_count": reads, "latency_us": latency, "reference_us": reference,
                        "difference": latency / reference - 1})
            bar.update(task, advance=1, note=f"{depth} in flight")
    show_rows("4 KB reads under MQSim's parameters", (
        ("in_flight", "in flight", ","), ("reads_count", "reads", ","), ("latency_us", "us", ",.1f"),
        ("reference_us", "MQSim (us)", ",.1f"), ("difference", "difference", "+.1%")), out)
    return out
