"""Where a network's cycles go, measured on the simulated device."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from device_bench import TIMEOUT, GuardedSim
from nearflash.contract import ModelError
from nearflash.contract.tensor import Op
from nearflash.offload import OffloadedModule
from nearflash.offload.fabric import DeviceFabric
from nearflash.offload.profile import profile
from nearflash.reference.tensor import TensorModel
from nearflash.runtime import Device
from nearflash.sar import network
from nearflash.sar.fabric import network_calibration
from small_despeckler import TENSORS, write_despeckler


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    weights, _ = write_despeckler(tmp_path_factory.mktemp("small"))
    net = network.load("tiny", Path(weights))
    return net.net, network_calibration(net, weights), (torch.rand(1, 1, 32, 32), torch.tensor([2.0]))


def test_operators_take_what_their_program_takes(small):
    model, calibration, inputs = small
    with Device(GuardedSim(TENSORS), timeout=TIMEOUT) as device:
        module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
        module(*inputs)
        before = device.backend.cycles
        want = module(*inputs)
        whole = device.backend.cycles - before
        found = profile(module, *inputs)
        (program,) = module.compiled(*inputs).programs
        assert [m.name for m in found] == [o.name for o in program.operators]
        assert {m.kind for m in found} == {op.name for op in Op} - {"PROGRAM"}
        assert all(m.cycles > 0.9 * m.bound for m in found)  # 0.9: a word that is fetched ahead counts for the one before
        total = sum(m.cycles for m in found)
        assert total < whole < total + 3000 + (program.input_bytes + 4096) // 8  # the command, its input and output
        slowest = max(found, key=lambda m: m.macs)
        assert slowest.cycles < 3 * slowest.bound
        assert torch.equal(module(*inputs), want)
        module.fabric.config = replace(TENSORS, tensor=replace(TENSORS.tensor, dram_bytes=program.end // 4096 * 4096))
        with pytest.raises(ModelError, match=r"tensor.dram_bytes.*must be at least"):
            profile(module, *inputs)


def test_the_integer_model_has_no_cycles(small):
    model, calibration, inputs = small
    with pytest.raises(ModelError, match="has no cycles"):
        profile(OffloadedModule(model, TensorModel(TENSORS), "all", calibration), *inputs)
