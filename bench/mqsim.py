"""Latency of random 4 KB reads under MQSim's parameters, by reads in flight.

Lookups of a table whose rows are 4 KB. ``lookup.tags`` bounds the reads in flight, and that many always are: by Little's law
a read takes the time in which ``tags`` of them end. The references are MQSim's, with an ideal mapping.

MQSim and the device differ in what a channel does when both a data-out and a command could begin. MQSim moves data first
(``NVM_PHY_ONFI_NVDDR2::Execute_simulator_event``: waiting transfers, and without any the signal on which the scheduler sends
a command), so that a channel's chips fall into step and wait for the last one's data. The device sends the command first,
so that a die reads while others transfer. :class:`Channels` has nothing but the flash, the link and that choice.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place

from .report import Rows, progress, show_rows

__all__ = ["Channels", "measure"]

REFERENCE_US = {64: 283.0, 256: 1024.0}
ROWS, DIM = 60_000, 1024
READS, COMMANDS = 4000, 8  # of a command, and commands, several in flight: reads that end a run alone should weigh little
LINK_US = 32 * (128 + 28) / 4 / 1000  # MQSim's: 4 KB in packets of 128 B with 28 B of headers, on four lanes of 1 GB/s


class Channels:
    """4 KB reads of random dies, ``depth`` of them always in flight. A read is a command on its channel's bus, the array's
    time, a data-out on the bus, then the link; a die takes the next command when its data is out."""

    def __init__(self, config: DeviceConfig, data_first: bool, seed: int = 0):
        f = config.flash
        self.command, self.array = f.t_command_ns / 1000, f.t_read_ns / 1000
        self.out = f.bus_page_ns * 4096 / f.page_bytes / 1000
        self.data_first, self.dies, self.rng = data_first, f.dies, np.random.default_rng(seed)
        self.events: list[tuple[float, int, Callable[[int], None], int]] = []
        self.now, self.link, self.count = 0.0, 0.0, 0
        self.bus_busy, self.turn = [False] * f.channels, [0] * f.channels
        self.sent = [deque[float]() for _ in range(f.channels * f.dies)]  # when, of the reads that each die has yet to do
        self.die_idle = [True] * len(self.sent)
        self.loaded = [deque[int]() for _ in range(f.channels)]  # dies that wait for their data-out
        self.latencies: list[float] = []

    def mean_latency(self, depth: int, reads: int) -> float:
        """Microseconds, of ``reads`` reads; those in flight at first don't count."""
        for _ in range(depth):
            self._send()
        while len(self.latencies) < depth + reads:
            self.now, _, then, die = heapq.heappop(self.events)
            then(die)
        return float(np.mean(self.latencies[depth:]))

    def _later(self, at: float, then: Callable[[int], None], die: int) -> None:
        self.count += 1  # what comes at the same time happens in the order in which it was known
        heapq.heappush(self.events, (at, self.count, then, die))

    def _send(self) -> None:
        die = int(self.rng.integers(len(self.sent)))
        self.sent[die].append(self.now)
        self._next(die // self.dies)

    def _next(self, channel: int) -> None:
        """What the channel's bus does now, if it is free."""
        if self.bus_busy[channel]:
            return
        dies = range(channel * self.dies, (channel + 1) * self.dies)
        wanting = [k for k in dies if self.die_idle[k] and self.sent[k]]  # round-robin among them, in both
        if self.loaded[channel] and (self.data_first or not wanting):
            self.bus_busy[channel] = True
            self._later(self.now + self.out, self._out, self.loaded[channel].popleft())
        elif wanting:
            die = min(wanting, key=lambda k: (k - self.turn[channel]) % self.dies)
            self.turn[channel] = die + 1
            self.bus_busy[channel], self.die_idle[die] = True, False
            self._later(self.now + self.command, self._commanded, die)

    def _commanded(self, die: int) -> None:
        self.bus_busy[die // self.dies] = False
        self._later(self.now + self.array, self._loaded, die)
        self._next(die // self.dies)

    def _loaded(self, die: int) -> None:
        self.loaded[die // self.dies].append(die)
        self._next(die // self.dies)

    def _out(self, die: int) -> None:
        self.bus_busy[die // self.dies], self.die_idle[die] = False, True
        self.link = max(self.link, self.now) + LINK_US
        sent = self.sent[die].popleft()
        self._later(self.link, lambda _: self._arrived(sent), die)
        self._next(die // self.dies)

    def _arrived(self, sent: float) -> None:
        self.latencies.append(self.now - sent)
        self._send()


def simulated(depth: int, commands: int) -> float:
    """Mean latency (us) in the simulator of the device."""
    base = DeviceConfig.preset("mqsim")
    config = replace(base, lookup=replace(base.lookup, tags=depth))
    rng = np.random.default_rng(depth)
    batches = [Batch.of([(rng.integers(0, ROWS, READS), np.array([0]))]) for _ in range(commands)]
    timeline = Simulator(config, place(config, [TableSpec(ROWS, DIM)]), config.host.infer_depth).run(batches)
    return depth * int(timeline.completed[-1]) / config.clock_mhz / (READS * commands)


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    commands = 2 if quick else COMMANDS
    with progress() as bar:
        task = bar.add_task("mqsim", total=len(REFERENCE_US), note="compiling the loops")
        for depth, reference in REFERENCE_US.items():
            first = {name: Channels(DeviceConfig.preset("mqsim"), name == "data").mean_latency(depth, READS * commands)
                     for name in ("data", "command")}
            latency = simulated(depth, commands)
            out.append({"in_flight": depth, "reads_count": READS * commands, "latency_us": latency,
                        "command_first_us": first["command"], "data_first_us": first["data"], "reference_us": reference,
                        "difference": latency / first["command"] - 1,
                        "reference_difference": first["data"] / reference - 1})
            bar.update(task, advance=1, note=f"{depth} in flight")
    show_rows("4 KB reads under MQSim's parameters (us)", (
        ("in_flight", "in flight", ","), ("reads_count", "reads", ","), ("latency_us", "simulator", ",.1f"),
        ("command_first_us", "flash alone, command first", ",.1f"), ("difference", "difference", "+.1%"),
        ("data_first_us", "flash alone, data first", ",.1f"), ("reference_us", "MQSim", ",.1f"),
        ("reference_difference", "difference", "+.1%")), out)
    return out
