"""Random reads of whole logical blocks against the flash's own limit, by queue depth.

READs of one block each on lookup-only devices of preset ``paper`` (4 channels) with 1 and 4 dies per channel, at uniform
random addresses of written blocks. One queue pair holds as many commands as the depth says: another is submitted for each
that completes. The window opens when the queue has turned over a few times and closes with the last submission, so neither
the ramp nor the drain counts. Every block is compared with what was written. Two limits:

* the flash's limit: what dies and channel buses would do with the same addresses and the same depth if nothing else took
  any time (:func:`flash_limit`): few commands at random addresses leave some dies idle;
* the ceiling: every die and bus busy all the time, as for lookups
  (:meth:`~nearflash.contract.DeviceConfig.ceiling_cycles_per_lookup`), which no depth reaches at random addresses.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import DeviceConfig, Opcode
from nearflash.runtime.nvme import Buffer, Command

from .report import Rows, progress, show_rows

__all__ = ["flash_limit", "measure", "measure_reads"]

DIES = (1, 4)
DEPTHS = (1, 4, 8, 32)
COMMANDS = 4000  # of a window; a quick one has a fifth
WARM_TURNS = 3  # of the queue, before the window opens
BLOCKS = 1024  # written: a multiple of every device's dies
QUEUE = 2


def flash_limit(config: DeviceConfig, pages: list[int], depth: int, first: int) -> float:
    """Cycles per page from the completion of page ``first`` on, when ``depth`` of the physical ``pages`` are in flight, the
    next begins as one ends, and only the flash takes time: tR of the die, then the transfer on its channel's bus."""
    f = config.flash
    transfer = config.bus_cycles(f.page_bytes)
    waiting: list[deque[int]] = [deque() for _ in range(f.channels * f.dies)]  # for a die
    loaded: list[deque[int]] = [deque() for _ in range(f.channels)]  # dies that wait for their bus
    die_busy, bus_busy = [False] * len(waiting), [False] * f.channels
    events: list[tuple[int, int, bool]] = []  # (cycle, die, whether its transfer ends, else its tR)
    now = start = ended = 0

    def begin_read(die: int) -> None:
        if waiting[die] and not die_busy[die]:
            waiting[die].popleft()
            die_busy[die] = True
            heapq.heappush(events, (now + config.t_read, die, False))

    def begin_transfer(channel: int) -> None:
        if loaded[channel] and not bus_busy[channel]:
            bus_busy[channel] = True
            heapq.heappush(events, (now + transfer, loaded[channel].popleft(), True))

    def send(page: int) -> None:
        die = page % len(waiting)
        waiting[die].append(page)
        begin_read(die)

    for page in pages[:depth]:
        send(page)
    while events:
        now, die, ends = heapq.heappop(events)
        channel = die % f.channels
        if not ends:
            loaded[channel].append(die)
        else:
            die_busy[die] = bus_busy[channel] = False
            ended += 1
            if ended == first:
                start = now
            if depth + ended > len(pages):  # the window closes with the last submission
                return (now - start) / (ended - first)
            send(pages[depth + ended - 1])
            begin_read(die)
        begin_transfer(channel)
    raise ValueError(f"pages = {len(pages)}: must be more than depth ({depth}) + first ({first})")


def measure_reads(device: runtime.Device, content: bytes, depth: int, commands: int, seed: int = 0) -> dict[str, Any]:
    """Keep ``depth`` READs in flight until ``commands`` were submitted in the window, in a device whose log begins with
    ``content`` in its first logical blocks: block number and page number are one."""
    c, driver, size = device.config, device.driver, device.config.lba_bytes
    warm = WARM_TURNS * depth
    lbas = [int(lba) for lba in np.random.default_rng(seed).integers(0, len(content) // size, warm + commands)]
    flying: dict[Command, tuple[Buffer, int, int]] = {}
    latencies: list[int] = []
    start = errors = 0

    def land() -> None:
        nonlocal errors
        for command in driver.wait_any(flying):
            b, lba, submitted = flying.pop(command)
            command.check()
            latencies.append(device.backend.cycles - submitted)
            errors += b.read() != content[lba * size : (lba + 1) * size]
            command.release()

    for i, lba in enumerate(lbas):
        if i == warm:
            start = device.backend.cycles
            latencies.clear()
        b = driver.buffer(size)
        submitted = device.backend.cycles
        command = driver.submit(QUEUE, Opcode.READ, f"read of block {lba}", [b], nsid=1, prp1=b.address, cdw10=lba, cdw12=0)
        flying[command] = b, lba, submitted
        if len(flying) == depth:
            land()
    cycles, completed = device.backend.cycles - start, len(latencies)
    while flying:
        land()
    limit, ceiling = flash_limit(c, lbas, depth, warm - depth + 1), c.ceiling_cycles_per_lookup(size)
    latencies = latencies[:completed]
    us = 1 / c.clock_mhz
    return {
        "channels": c.flash.channels, "dies": c.flash.dies, "block_bytes": size, "queue_depth": depth,
        "limit_cycles_per_read": limit, "ceiling_cycles_per_read": ceiling, "cycles_per_read": cycles / completed,
        "limit_share": limit * completed / cycles, "ceiling_share": ceiling * completed / cycles,
        "reads_per_second": c.clock_mhz * 1e6 * completed / cycles, "latency_mean_us": sum(latencies) / completed * us,
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
    show_rows("4 KiB random reads (cycles per read)", (
        ("dies", "dies", "d"), ("queue_depth", "depth", "d"), ("reads_per_second", "IOPS", ",.0f"),
        ("cycles_per_read", "measured", ",.0f"), ("limit_cycles_per_read", "limit", ",.0f"),
        ("limit_share", "of limit", ".1%"), ("ceiling_cycles_per_read", "ceiling", ",.0f"),
        ("ceiling_share", "of ceiling", ".1%"), ("latency_mean_us", "mean us", ".1f"),
        ("latency_p99_us", "99 % us", ".1f"), ("mismatches", "wrong", "d")), out)
    return out
