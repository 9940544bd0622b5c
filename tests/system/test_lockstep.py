"""The gated model of a device against the ungated one: the same host program meets the same device, cycle by cycle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_bench import (
    TIMEOUT,
    Recorded,
    assert_one_device,
    assert_same_bits,
    call,
    expected,
    random_bags,
    random_block_io,
    submit_lookup,
)
from nearflash.contract import Opcode, RowFormat
from nearflash.runtime import Device
from nearflash_sim.small.device import CACHED, load, make_table
from test_device_models import CASES, compiled, configured, dense_of, queries

NAME = "cat"  # weights on chip, three table formats, every kind of block a device without a row cache or a window has
BOTH = replace(CACHED, name="both", flash=replace(CACHED.flash, t_ccs_ns=800),
               lookup=replace(CACHED.lookup, tags=64, page_window=24, map_misses=4))


def traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """What a random host program sees: inference, block I/O, refused commands and waits, on memories of random timing, some
    of which stall at random."""
    rng = np.random.default_rng(seed)
    spec = CASES[NAME].spec
    _, model = compiled(NAME, seed)
    backend = Recorded(configured(NAME), gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        device.load(model, preload=bool(seed % 2))
        for step in range(12):
            backend.random_timing(rng, (0.0, 0.0, 0.2)[step % 3], step + 1)
            tickets = []
            for _ in range(int(rng.integers(1, 5))):
                dense, bags = queries(spec, int(rng.integers(1, 9)), rng, weighted=bool(rng.integers(2)))
                tickets.append(device.submit(dense_of(spec, dense), bags))
                backend.idle(int(rng.integers(0, 3000)))
            random_block_io(rng, device, 2)
            call(device, 1, Opcode.READ, cdw10=device.config.lbas)  # beyond the end
            for ticket in tickets:
                device.result(ticket)
            backend.end_step(device, rng, 200_000)
    return backend.log


def local_traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """Lookups of a few pages' rows, on a device with a row cache and a page window that is written to meanwhile, and enabled
    anew."""
    rng = np.random.default_rng(seed)
    tables = [make_table(rng, BOTH, 160, 8), make_table(rng, BOTH, 60, 16, RowFormat.INT8)]
    backend = Recorded(BOTH, gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        load(device, tables, preload=bool(seed % 2))
        for step in range(12):
            backend.random_timing(rng, (0.0, 0.0, 0.2)[step % 3], step + 1)
            asked = []
            for _ in range(int(rng.integers(1, 5))):
                asked.append(random_bags(rng, tables, int(rng.integers(1, 5)), 20))
            tickets = [submit_lookup(device, bags) for bags in asked]
            backend.idle(int(rng.integers(0, 3000)))
            device.write(device.config.lbas - 20 + step, rng.bytes(device.config.lba_bytes))
            for bags, ticket in zip(asked, tickets, strict=True):
                assert_same_bits(device.result(ticket), expected(device, tables, bags))
            backend.end_step(device, rng, 100_000)
            if step % 5 == 4:
                device.driver.enable()
        count = device.counters()
    reads = sum(v for name, v in count.items() if name.endswith("reads_count"))
    assert count["cache_hits_count"] > 50
    assert 0 < reads < count["lookups_count"] - count["cache_hits_count"]  # the others found their page in a die
    return backend.log


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("program", "least"), [(traffic, 1_000_000), (local_traffic, 300_000)])
def test_gated_and_ungated_models_are_one_device(program, least, seed):
    log = assert_one_device(program, seed)
    assert log[-1][0] > least
