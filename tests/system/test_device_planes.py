"""A device whose dies have two planes: answers and bytes exact while it writes, and its gated model the same device."""

from __future__ import annotations

import numpy as np
import pytest
from device_bench import (
    TIMEOUT,
    Recorded,
    assert_one_device,
    assert_same_bits,
    call,
    expected,
    open_device,
    random_bags,
    random_block_io,
    random_tables,
    scatter,
    submit_lookup,
)
from nearflash.contract import Opcode
from nearflash.runtime import Device
from nearflash_sim.small.device import PLANES, load, make_table
from test_device_block_io import Shadow


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("stall", [0.0, 0.3], ids=["smooth", "stalls"])
def test_block_io_and_lookups_together_are_exact(seed, stall):
    """Enough is written for every plane to erase blocks while others of its die have lookups."""
    rng = np.random.default_rng(200 + seed)
    with open_device(PLANES) as device:
        for k, memory in enumerate((device.backend.device.host, device.backend.device.dram)):
            memory.set_timing(40, 10, stall, seed=seed + k)
        tables = random_tables(rng, PLANES, 3)
        scatter(rng, PLANES, tables)
        load(device, tables)
        shadow, flying = Shadow(device, tables), []
        for _ in range(60):
            while len(flying) < 4:
                bags = random_bags(rng, tables, int(rng.integers(1, 9)), weighted=bool(rng.integers(2)))
                flying.append((submit_lookup(device, bags), bags))
            shadow.step(rng)
            while flying and flying[0][0].command.completion is not None:
                ticket, bags = flying.pop(0)
                assert_same_bits(device.result(ticket), expected(device, tables, bags))
        for ticket, bags in flying:
            assert_same_bits(device.result(ticket), expected(device, tables, bags))
        shadow.check_all()
        count = device.counters()
        assert sum(v for k, v in count.items() if k.endswith("programs_count")) > 2 * 8 * PLANES.flash.pages / 2
        assert all(v for k, v in count.items() if "_plane" in k)


def traffic(*, gated: bool):
    """What a random host program sees of lookups and block I/O at the same time."""
    rng = np.random.default_rng(5)
    backend = Recorded(PLANES, gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        tables = [make_table(rng, PLANES, 300, 8) for _ in range(2)]
        load(device, tables)
        for step in range(8):
            backend.random_timing(rng, (0.0, 0.2)[step % 2], step + 1)
            tickets = [submit_lookup(device, random_bags(rng, tables, int(rng.integers(1, 9)))) for _ in range(3)]
            random_block_io(rng, device, 20)
            call(device, 1, Opcode.READ, cdw10=device.config.lbas)  # beyond the end
            for ticket in tickets:
                device.result(ticket)
            backend.end_step(device, rng, 100_000)
    return backend.log


def test_gated_and_ungated_models_are_one_device():
    log = assert_one_device(traffic)
    assert log[-1][0] > 200_000
