"""How close random lookups come to the flash's ceiling, which counts on all dies having the same to do."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from ..contract import DeviceConfig, TableSpec
from ..models.spec import ModelSpec

__all__ = ["balance", "slots_for"]

LOOKUPS, SAMPLES = 40_000, 64  # simulated: so many lookups, and at least so many samples
READY = 40  # cycles from a sample's last vector to the first element drained, and until its slot takes a new sample
MOST_SLOTS = 64


def balance(spec: ModelSpec, config: DeviceConfig) -> float:
    """Share of :func:`~nearflash.compiler.embedding_cycles`' pace that ``config`` keeps on uniformly random rows.

    A queue model: every server (a die, or a channel where the bus is slower) takes its lookups in order; a sample issues its
    lookups when it gets one of ``sample_slots`` and keeps the slot until its pooled vectors have been drained, in order.
    Deterministic.
    """
    tables = [(t.lookups, TableSpec(t.rows, t.dim, t.row_format).stride_beats(config) * config.beat_bytes)
              for t in spec.tables]
    lookups = sum(n for n, _ in tables)
    ceiling = sum(n * config.ceiling_cycles_per_lookup(row) for n, row in tables) / lookups
    flash = config.flash
    die_bound = ceiling > sum(n * config.bus_cycles(row) for n, row in tables) / lookups / flash.channels
    servers = flash.channels * (flash.channel_planes if die_bound else 1)
    service, slots = ceiling * servers, config.lookup.sample_slots
    drain = sum(t.dim for t in spec.tables) + 2 * len(tables)

    samples = max(SAMPLES, LOOKUPS // lookups)
    return min(1.0, samples * lookups * ceiling / _simulated(samples, lookups, servers, service, slots, drain))


@lru_cache(maxsize=256)  # the kernel search asks again for every set of streamed layers
def _simulated(samples: int, lookups: int, servers: int, service: float, slots: int, drain: int) -> float:
    """Cycles until the last sample is drained."""
    rng = random.Random(0)
    free, done = [0.0] * servers, [0.0]
    for i in range(samples):
        start = done[i - slots + 1] if i >= slots else 0.0
        last = start
        for _ in range(lookups):
            server = rng.randrange(servers)
            free[server] = max(free[server], start) + service
            last = max(last, free[server])
        done.append(max(last + READY, done[-1]) + drain)
    return done[-1]


def slots_for(spec: ModelSpec, config: DeviceConfig, share: float, least: int) -> int:
    """The fewest sample slots, a power of two from ``least`` up, with which :func:`balance` is at least ``share``."""
    slots = 1 << (least - 1).bit_length()
    while slots < MOST_SLOTS and balance(spec, replace(config, lookup=replace(config.lookup, sample_slots=slots))) < share:
        slots *= 2
    return slots
