"""``rst`` at any moment: the device goes on as one that was just made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_bench import TIMEOUT, Recorded, call, outcome
from nearflash.contract import Opcode, Status
from nearflash.runtime import Device
from nearflash.runtime.backend import HostAllocator
from nearflash_sim.backend import HOST_BASE, HOST_BYTES
from nearflash_sim.bench.amaranth import FORMER_LIVES
from test_device_models import CASES, compiled, configured, dense_of, queries

NAME = "cat"  # weights on chip, three table formats, every kind of block a device has
FIRST, LIVES = (int(FORMER_LIVES), 40) if FORMER_LIVES else (0, 6)


class Second(Recorded):
    """Another host program on a device that is there already, and is reset."""

    def __init__(self, first: Recorded):
        self.config, self.device, self.log, self._sizes = first.config, first.device, [], {}
        self._allocator = HostAllocator(HOST_BASE, HOST_BYTES)
        self.device.reset()


def some_life(device: Device, rng: np.random.Generator) -> None:
    """Queries, block I/O and refused commands, all under way when it ends."""
    spec = CASES[NAME].spec
    for step in range(int(rng.integers(1, 9))):
        dense, bags = queries(spec, int(rng.integers(1, 9)), rng, weighted=bool(rng.integers(2)))
        device.submit(dense_of(spec, dense), bags)
        b = device.driver.buffer(rng.bytes(2 * device.config.lba_bytes))
        device._block_command((Opcode.WRITE, Opcode.READ)[step % 2], b, device.config.lbas - 60 + step, 2)
        device.driver.submit(1, Opcode.READ, "beyond the end", nsid=1, cdw10=device.config.lbas)
        device.backend.idle(int(rng.integers(1, 4000)))


def program(backend: Recorded, seed: int) -> list[tuple[Any, ...]]:
    """What a host program sees that opens the device anew and uses all of it; cycles from its beginning."""
    rng = np.random.default_rng(seed)
    spec = CASES[NAME].spec
    _, model = compiled(NAME, seed)
    start = backend.cycles
    with Device(backend, timeout=TIMEOUT) as device:
        dense, bags = queries(spec, 2, rng)
        backend.note("refused", outcome(device, device.submit(dense_of(spec, dense), bags).command))
        device.load(model, preload=True)
        got = []
        for _ in range(3):
            dense, bags = queries(spec, int(rng.integers(1, 9)), rng)
            lba = device.config.lbas - 100 + int(rng.integers(0, 50))
            ticket = device.submit(dense_of(spec, dense), bags)
            device.write(lba, rng.bytes(device.config.lba_bytes))
            got += [device.result(ticket).tobytes(), device.read(lba)]
        backend.note("results", got)
        backend.note("counters", tuple(device.counters().items()))
        backend.note_memories()
    return [(cycle - start, *what) for cycle, *what in backend.log]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + LIVES))
def test_after_a_reset_at_any_moment_it_is_a_new_device(seed):
    rng = np.random.default_rng(seed)
    first = Recorded(configured(NAME), board=True)
    device = Device(first, timeout=TIMEOUT)
    device.load(compiled(NAME, seed)[1], preload=bool(seed % 2))
    some_life(device, rng)
    dram = first.device.dram.read(0, first.config.layout.end)
    first.device.host.clear()
    again = program(Second(first), seed)
    fresh = Recorded(configured(NAME), board=True)
    fresh.device.dram.write(0, dram)
    new = program(fresh, seed)
    assert again[0] == new[0]
    for a, b in zip(again, new, strict=True):
        assert a == b


def test_a_subsystem_reset_through_the_runtime():
    with Device(Recorded(configured(NAME), board=True), timeout=TIMEOUT) as device:
        _, model = compiled(NAME)
        spec = CASES[NAME].spec
        dense, bags = queries(spec, 4, np.random.default_rng(3))
        device.load(model)
        want = device.result(device.submit(dense_of(spec, dense), bags))
        some_life(device, np.random.default_rng(1))
        device.subsystem_reset()
        assert call(device, 1, Opcode.READ, nsid=1, cdw10=device.config.lbas).status == Status.LBA_OUT_OF_RANGE
        assert outcome(device, device.submit(dense_of(spec, dense), bags).command).status == Status.NO_PROGRAM
        device.load(model)
        assert (device.result(device.submit(dense_of(spec, dense), bags)) == want).all()
