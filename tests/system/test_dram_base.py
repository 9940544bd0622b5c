"""The device's DRAM anywhere behind its port, on buses of fewer bits and shorter bursts."""

import numpy as np
import pytest
from device_bench import TIMEOUT, GuardedSim
from nearflash.contract import DeviceTimeout
from nearflash.runtime import Device
from test_device_models import CASES, compiled, configured, dense_of, queries

NAME = "neumf-dram"  # a bus of 32 bits, weights in DRAM


def test_the_same_device_in_a_corner_of_its_memory():
    spec = CASES[NAME].spec
    _, model = compiled(NAME)
    config = configured(NAME)
    base = (1 << 32) - (config.layout.end + 4095) // 4096 * 4096  # it ends with the bus
    dense, bags = queries(spec, 5, np.random.default_rng(1))
    answers = []
    for at in (0, 0x0765_4000, base):
        backend = GuardedSim(config, dram_base=at)
        memory = backend.device.dram
        memory.fill(max(0, at - (1 << 16)), 0x5A, min(at, 1 << 16))
        with Device(backend, timeout=TIMEOUT) as device:
            device.load(model)
            device.write(100, bytes(range(256)) * (config.lba_bytes // 256))
            logits = device.infer(dense_of(spec, dense), bags, include_last_offset=False)
            answers.append((logits.tobytes(), device.read(100)))
            assert memory.read(max(0, at - (1 << 16)), min(at, 1 << 16)) == b"\x5A" * min(at, 1 << 16)
    assert answers[0] == answers[1] == answers[2]


def test_a_base_without_room_is_fatal_and_changes_nothing():
    config = configured(NAME)
    backend = GuardedSim(config, dram_base=(1 << 32) - config.layout.end // 4096 * 4096 + 4096)
    with pytest.raises(DeviceTimeout, match=r"CSTS\.RDY did not become 1"):
        Device(backend, timeout=100_000)
    assert backend.device.dram.traffic.write_beats == 0
    assert backend.mmio_read32(0x1C) == 2  # CFS, not RDY
