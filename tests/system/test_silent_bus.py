"""A memory that stops answering at any moment: the device says which, the host's waits end, and a reset recovers."""

from __future__ import annotations

import numpy as np
import pytest
from device_bench import GuardedSim
from nearflash.contract import DeviceTimeout
from nearflash.contract.registers import BUSES
from nearflash.runtime import Device
from test_device_models import CASES, compiled, configured, dense_of, queries

NAME = "cat"
PATIENCE = 3 << 20  # cycles: above what the device waits for a bus


def ask_on(device, ticket, dense, bags):
    """The query under way may just have ended: then the next ones do not."""
    for _ in range(3):
        device.result(ticket)
        ticket = device.submit(dense, bags)


@pytest.mark.parametrize("which", ["host", "dram"])
@pytest.mark.parametrize("seed", range(4))
def test_every_wait_ends_and_says_why(which, seed):
    rng = np.random.default_rng(seed)
    spec = CASES[NAME].spec
    _, model = compiled(NAME, seed)
    backend = GuardedSim(configured(NAME))
    device = Device(backend, timeout=PATIENCE)
    memory = getattr(backend.device, which)
    device.load(model, preload=True)
    dense, bags = queries(spec, 4, rng)
    want = device.result(device.submit(dense_of(spec, dense), bags))

    ticket = device.submit(dense_of(spec, dense), bags)
    backend.idle(int(rng.integers(1, 3000)))
    memory.silence()
    with pytest.raises(DeviceTimeout) as e:
        ask_on(device, ticket, dense_of(spec, dense), bags)
    status = device.driver.read_register("bus_status")
    named = [name for bit, name in enumerate(BUSES.values()) if status >> bit & 1]
    assert named
    assert all(name.startswith({"host": "host", "dram": "DRAM"}[which]) for name in named)
    assert f"CSTS.CFS: no answer to {', '.join(named)}" in str(e.value)
    with pytest.raises(DeviceTimeout, match=r"CSTS\.RDY did not become 0.*no answer to"):
        device.reset()

    memory.silence(False)
    device.subsystem_reset()
    assert device.driver.read_register("bus_status") == 0
    device.load(model, preload=True)
    assert (device.result(device.submit(dense_of(spec, dense), bags)) == want).all()
    device.close()
