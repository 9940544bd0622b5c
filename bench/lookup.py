"""Cycles per embedding lookup in steady state, against the paper's C_EV and the flash's own limit.

LOOKUP commands on lookup-only devices of preset ``paper`` with 1, 2 and 4 dies per channel; vector size and bag are
properties of the tables. The queue is kept full; the window opens when the tags have been handed out a few times and
closes with the last submission, so neither the ramp nor the drain counts. Row numbers are uniform random, and every
table's pages spread evenly over the dies. Two limits:

* C_EV / (channels x dies): tR and transfer of one vector after the other on every die, as in the paper's figures;
* the ceiling: the same, but never less than the channel bus needs for its vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.contract import DeviceConfig, Opcode, RowFormat, TableSpec
from nearflash.contract.registers import plane_counters
from nearflash.quantize.tables import encode_rows

from .report import Rows, progress, show_rows

__all__ = ["STREAMS", "Stream", "measure", "measure_stream"]

DIES = (1, 2, 4)
WINDOW_CYCLES = 2_500_000  # of a full run; a quick one takes a fifth
WARM_TAGS = 3  # lookups before the window opens, in tags of the device


@dataclass(frozen=True)
class Stream:
    """The lookups of one kind of sample: ``bag`` rows of each of ``tables`` tables of ``dim`` fp32 elements."""

    name: str
    tables: int
    dim: int
    bag: int

    @property
    def lookups(self) -> int:
        return self.tables * self.bag

    @property
    def vector_bytes(self) -> int:
        return 4 * self.dim


STREAMS = (
    Stream("128 B", 1, 32, 256),
    Stream("256 B", 1, 64, 256),
    Stream("4096 B", 1, 1024, 256),
    Stream("RMC1", 8, 32, 80),
    Stream("RMC2", 32, 64, 120),
)


def device_config(dies: int) -> DeviceConfig:
    """One device for all streams of a die count: RMC2's pooled vectors are the largest."""
    c = DeviceConfig.preset("paper", dies=dies)
    elements = max(s.tables * s.dim for s in STREAMS)
    return replace(c, lookup=replace(c.lookup, accumulators=max(c.lookup.accumulators, elements)))


def load(device: runtime.Device, stream: Stream, rng: np.random.Generator) -> int:
    """Replace the device's tables by the stream's; returns their rows. Pages are a multiple of the planes."""
    f = device.config.flash
    for t in list(device.tables):
        device.delete_table(t)
    spec = TableSpec(1, stream.dim, RowFormat.FP32)
    rows = 4 * f.channels * f.channel_planes * spec.rows_per_page(device.config)
    spec = replace(spec, rows=rows, lsb_exp=-34, headroom=9)
    content = encode_rows(rng.standard_normal((rows, stream.dim)).astype(np.float32), RowFormat.FP32)
    device.create_tables({t: (spec, content) for t in range(stream.tables)}, preload=True)
    return rows


def measure_stream(device: runtime.Device, stream: Stream, window_cycles: int,
                   note: Callable[[float], None] = lambda _: None, seed: int = 0) -> dict[str, Any]:
    """Run ``stream`` for about ``window_cycles`` cycles in steady state; ``note`` hears the share that is done."""
    c = device.config
    rng = np.random.default_rng(seed)
    rows = load(device, stream, rng)
    ceiling = c.ceiling_cycles_per_lookup(stream.vector_bytes)
    depth = c.host.infer_depth
    batch = max(1, -(-c.lookup.tags // stream.lookups))  # so that one command already keeps all tags busy
    per_command = batch * stream.lookups
    warm = -(-WARM_TAGS * c.lookup.tags // per_command)
    total = warm + max(2, round(window_cycles / ceiling / per_command)) + depth
    offsets = np.arange(batch) * stream.bag

    flying: deque[runtime.Ticket] = deque()
    start, first = {}, 0
    for i in range(total):
        if len(flying) == depth:
            device.result(flying.popleft())
        if i == warm + depth:
            start, first = device.counters(), device.backend.cycles
        bags = [(rng.integers(0, rows, per_command // stream.tables), offsets) for _ in range(stream.tables)]
        flying.append(device._query(Opcode.LOOKUP, None, bags, None))
        note((i + 1) / (total + 1))
    end, last = device.counters(), device.backend.cycles
    while flying:
        device.result(flying.popleft())

    count = {k: end[k] - start[k] for k in end}
    cycles, lookups = count["cycles"], count["lookups_count"]
    reads = sum(count[f"channel{k}_reads_count"] for k in range(c.flash.channels))
    dies = [count[name] / cycles for name in plane_counters(c)]
    buses = [count[f"channel{k}_bus_busy"] / cycles for k in range(c.flash.channels)]
    c_ev = c.read_cycles_per_vector(stream.vector_bytes)
    return {
        "stream": stream.name, "vector_bytes": stream.vector_bytes, "tables": stream.tables, "bag": stream.bag,
        "channels": c.flash.channels, "dies": c.flash.dies, "tags": c.lookup.tags, "sample_slots": c.lookup.sample_slots,
        "c_ev_cycles": c_ev, "c_ev_cycles_per_lookup": c_ev / c.flash.channels / c.flash.dies,
        "ceiling_cycles_per_lookup": ceiling, "cycles_per_lookup": cycles / lookups,
        "ceiling_share": ceiling * lookups / cycles, "lookups_per_second": c.clock_mhz * 1e6 * lookups / cycles,
        "die_busy_share_mean": sum(dies) / len(dies), "die_busy_share_min": min(dies),
        "bus_busy_share_mean": sum(buses) / len(buses), "map_misses_count": count["map_misses_count"],
        "window_lookups_count": lookups, "window_reads_count": reads, "window_cycles": last - first,
    }


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("lookup", total=len(DIES) * len(STREAMS), note="")
        for dies in DIES:
            bar.update(task, note=f"building the device with {dies} dies per channel")
            with runtime.open("sim", config=device_config(dies)) as device:
                for s in STREAMS:
                    done = len(out)
                    bar.update(task, note=f"{s.name}, {dies} dies per channel")
                    out.append(measure_stream(device, s, WINDOW_CYCLES // (5 if quick else 1),
                                              lambda share, done=done: bar.update(task, completed=done + share)))
    show_rows("Embedding lookups, steady state (cycles per lookup)", (
        ("stream", "stream", ""), ("vector_bytes", "bytes", ","), ("dies", "dies per channel", ""),
        ("c_ev_cycles", "C_EV", ","), ("c_ev_cycles_per_lookup", "C_EV / dies", ",.1f"),
        ("ceiling_cycles_per_lookup", "ceiling", ",.1f"), ("cycles_per_lookup", "measured", ",.1f"),
        ("ceiling_share", "share of ceiling", ".1%"), ("die_busy_share_mean", "dies busy", ".1%"),
        ("bus_busy_share_mean", "buses busy", ".1%"), ("window_lookups_count", "lookups", ","),
    ), out)
    return out
