"""The gated model of a device against the ungated one: the same host program meets the same device, cycle by cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_bench import TIMEOUT, Recorded, call
from nearflash.contract import Opcode
from nearflash.runtime import Device
from test_device_models import CASES, compiled, configured, dense_of, queries

NAME = "cat"  # weights on chip, three table formats, every kind of block a device has


def traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """What a random host program sees: inference, block I/O, refused commands and waits, on memories of random timing, some
    of which stall at random."""
    rng = np.random.default_rng(seed)
    spec = CASES[NAME].spec
    _, model = compiled(NAME, seed)
    backend = Recorded(configured(NAME), gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        device.load(model, preload=bool(seed % 2))
        size = device.config.lba_bytes
        for step in range(12):
            for k, memory in enumerate((backend.device.host, backend.device.dram)):
                memory.set_timing(int(rng.integers(1, 300)), int(rng.integers(1, 40)), (0.0, 0.0, 0.2)[step % 3],
                                  seed=step + k + 1)
            tickets = []
            for _ in range(int(rng.integers(1, 5))):
                dense, bags = queries(spec, int(rng.integers(1, 9)), rng, weighted=bool(rng.integers(2)))
                tickets.append(device.submit(dense_of(spec, dense), bags))
                backend.idle(int(rng.integers(0, 3000)))
            lba = device.config.lbas - 100 + int(rng.integers(0, 50))
            device.write(lba, rng.bytes(2 * size))
            device.read(lba, 2)
            call(device, 1, Opcode.READ, cdw10=device.config.lbas)  # beyond the end
            for ticket in tickets:
                device.result(ticket)
            backend.note("counters", tuple(device.counters().items()))
            backend.idle(int(rng.integers(1, 200_000)))
            backend.snapshot()
    return backend.log


@pytest.mark.parametrize("seed", [0, 1])
def test_gated_and_ungated_models_are_one_device(seed):
    gated, ungated = (traffic(seed, gated=g) for g in (True, False))
    for a, b in zip(gated, ungated, strict=False):
        assert a == b
    assert len(gated) == len(ungated)
    assert gated[-1][0] > 1_000_000
