"""Random reads of whole logical blocks against the flash's own limit, by queue depth.

READs of one block each on lookup-only devices of preset ``paper`` (4 channels) with 1 and 4 dies per channel, at uniform
random addresses of written blocks. One queue pair holds as many commands as the depth says: another is submitted for each
that completes. The window opens when the queue has turned over a few times and closes with the last submission, so neither
the ramp nor the drain counts. Every block is compared with what was written.

The limit: a die serves a page per tR and transfer, a channel's bus moves one per transfer time
(:meth:`~nearflash.contract.DeviceConfig.ceiling_cycles_per_lookup` of a page). It takes dies for equally busy, which few
commands at random addresses don't make them.
"""

from __future__ import annotations

from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import DeviceConfig, Opcode

from .report import Rows, progress, show_rows

__all__ = ["measure", "measure_reads"]

DIES = (1, 4)
DEPTHS = (1, 4, 8, 32)
COMMANDS = 4000  # of a window; a quick one has a fifth
WARM_TURNS = 3  # of the queue, before the window opens
BLOCKS = 1024  # written: a multiple of every device's dies
QUEUE = 2


def measure_reads(device: runtime.Device, content: bytes, depth: int, commands: int, seed: int = 0) -> dict[str, Any]:
    """Keep ``depth`` READs in flight until ``commands`` were submitted in the window, in a device whose first blocks hold
    ``content``."""
    c, driver, size = device.config, device.driver, device.config.lba_bytes
    lbas = np.random.default_rng(seed).integers(0, len(content) // size, WARM_TURNS * depth + commands)
    flying: list[tuple[Any, Any, int, int]] = []
    latencies: list[int] = []
    start = completed = errors = 0
    for i, lba in enumerate(map(int, lbas)):
        if i == WARM_TURNS * depth:
            start, completed = device.backend.cycles, 0
            latencies.clear()
        b = driver.buffer(size)
        submitted = device.backend.cycles
        command = driver.submit(QUEUE, Opcode.READ, f"read of block {lba}", [b], nsid=1, prp1=b.address, cdw10=lba, cdw12=0)
        flying.append((command, b, lba, submitted))
        if len(flying) == depth:
            driver._wait(lambda: any(f[0].completion is not None for f in flying), "reads", driver.timeout)
        for command, b, lba, submitted in [f for f in flying if f[0].completion is not None]:
            command.check()
            latencies.append(device.backend.cycles - submitted)
            errors += b.read() != content[lba * size : (lba + 1) * size]
            completed += 1
            command.release()
        flying = [f for f in flying if f[0].completion is None]
    cycles = device.backend.cycles - start
    driver.drain([command for command, *_ in flying])
    ceiling = c.ceiling_cycles_per_lookup(size)
    us = 1 / c.clock_mhz
    return {
        "channels": c.flash.channels, "dies": c.flash.dies, "block_bytes": size, "queue_depth": depth,
        "ceiling_cycles_per_read": ceiling, "cycles_per_read": cycles / completed,
        "ceiling_share": ceiling * completed / cycles, "reads_per_second": c.clock_mhz * 1e6 * completed / cycles,
        "latency_mean_us": sum(latencies) / len(latencies) * us,
        "latency_p99_us": float(np.percentile(latencies, 99)) * us, "window_reads_count": completed,
        "window_cycles": cycles, "mismatches": errors,
    }


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("block_io", total=len(DIES) * len(DEPTHS), note="")
        for dies in DIES:
            bar.update(task, note=f"building the device with {dies} dies per channel")
            with runtime.open("sim", config=DeviceConfig.preset("paper", dies=dies)) as device:
                content = np.random.default_rng(dies).bytes(BLOCKS * device.config.lba_bytes)
                device.write(0, content)
                for depth in DEPTHS:
                    bar.update(task, note=f"depth {depth}, {dies} dies per channel")
                    out.append(measure_reads(device, content, depth, COMMANDS // (5 if quick else 1)))
                    bar.advance(task)
    show_rows("4 KiB random reads", (
        ("dies", "dies per channel", "d"), ("queue_depth", "queue depth", "d"), ("reads_per_second", "IOPS", ",.0f"),
        ("cycles_per_read", "cycles per read", ",.1f"), ("ceiling_cycles_per_read", "limit", ",.1f"),
        ("ceiling_share", "share of limit", ".1%"), ("latency_mean_us", "latency, us", ".1f"),
        ("latency_p99_us", "99th percentile", ".1f"), ("mismatches", "mismatches", "d")), out)
    return out
