"""The tensor engine in the whole device, through NVMe commands: networks of convolutions against the integer model, lookups
and block I/O beside them, and what is refused."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from device_bench import (
    TIMEOUT,
    GuardedSim,
    assert_same_bits,
    call,
    expected,
    open_device,
    random_bags,
    random_tables,
    submit_lookup,
)
from nearflash.contract import ConfigError, DataError, Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES, TENSOR_LOAD, TENSOR_RUN, TensorConfig
from nearflash.offload import OffloadedModule
from nearflash.offload.calibrate import Calibration
from nearflash.offload.fabric import DeviceFabric
from nearflash.offload.module import matched_blocks
from nearflash.reference.tensor import TensorModel
from nearflash.runtime import Device
from nearflash_sim.small.device import SMALL, load
from torch import nn

TENSORS = replace(SMALL, name="tensors", tensor=TensorConfig(
    rows=4, columns=8, pixels=16, lanes=2, input_bytes=8192, weight_bytes=8192, max_channels=64, dram_bytes=1 << 18,
    operators=("conv",)))
ADMIN, INFER = 0, 1


class Convolutions(nn.Module):
    """Stride 2 and back by a pixel shuffle that adds the skip; every convolution with its ReLU or without."""

    def __init__(self):
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 9, 3, stride=2, padding=1)
        self.up, self.last = nn.Conv2d(9, 32, 1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        skip = torch.relu(self.first(x))
        y = torch.pixel_shuffle(self.up(torch.relu(self.down(skip))), 2) + skip
        return self.last(y)


@pytest.fixture(scope="module")
def network():
    """The network, an input, and scales that fit it."""
    torch.manual_seed(5)
    model, x = Convolutions().eval(), torch.randn(2, 3, 6, 8)
    matched, largest = matched_blocks(model, (x[:1],), "all"), {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            out = super().run_node(n)
            if isinstance(out, torch.Tensor):
                largest[n.name] = float(out.abs().max())
            return out

    with torch.no_grad():
        Watch(matched.graph).run(x[:1])
    return model, x, Calibration(largest)


@pytest.fixture
def device():
    with Device(GuardedSim(TENSORS), timeout=TIMEOUT) as d:
        yield d


def test_a_network_beside_lookups_and_block_io(device, network):
    """Four convolutions a program, one command an image: the integer model's bytes; the lookups under way meanwhile are
    exact, and so is what lies in flash."""
    model, x, calibration = network
    want = OffloadedModule(model, TensorModel(TENSORS), "all", calibration)(x)
    module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
    assert not module.compiled(x[:1]).matched.refused
    rng = np.random.default_rng(3)
    tables = random_tables(rng, TENSORS, 3)
    load(device, tables, preload=True)
    last = TENSORS.lbas - 2
    block = rng.bytes(TENSORS.lba_bytes)
    device.write(last, block)
    bags = [random_bags(rng, tables, 8) for _ in range(4)]
    before = device.counters()["lookups_count"]
    tickets = [submit_lookup(device, b) for b in bags]
    got = module(x)
    assert torch.equal(got, want)
    assert want.std() > 0.05
    for ticket, b in zip(tickets, bags, strict=True):
        assert_same_bits(device.result(ticket), expected(device, tables, b))
    assert device.counters()["lookups_count"] - before == sum(len(i) for b in bags for i, *_ in b)
    assert device.read(last) == block


def test_what_is_wrong_is_named_and_the_engine_goes_on(device, network):
    model, x, calibration = network
    module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
    want = module(x[:1])
    program = next(p for _, _, p in module.compiled(x[:1]).order if p)
    size = TENSORS.tensor.dram_bytes
    source, out = device.driver.buffer(bytes(4096)), device.driver.buffer(1 << 16)
    words = program.input_bytes // 4

    def loading(cdw10, cdw12, prp1=source.address):
        return call(device, ADMIN, TENSOR_LOAD, prp1=prp1, cdw10=cdw10, cdw12=cdw12)

    def running(prp1=source.address, cdw10=words, cdw11=program.base, out=out.address):
        return call(device, INFER, TENSOR_RUN, prp1=prp1, cdw10=cdw10, cdw11=cdw11, cdw14=out & 0xFFFFFFFF, cdw15=out >> 32)

    def said(completion):
        return completion.status, completion.dw0, completion.dw1

    span = Status.BAD_TENSOR_SPAN
    assert [said(loading(*f)) for f in ((16, 8), (0, 0), (8, 0), (16, size), (32, size - 64), (1 << 31, 0))] == [
        (span, 12, 0), (span, 10, 0), (span, 10, 0), (span, 10, 0), (span, 10, 0), (span, 10, 0)]
    assert loading(16, size - 64).status == Status.SUCCESS
    assert said(running(cdw11=program.base + 4)) == (span, 11, 0)
    assert said(running(cdw11=size)) == (span, 11, 0)
    assert said(running(cdw10=words - 1)) == said(running(cdw10=words | 1 << 30)) == (span, 10, 0)
    assert running(out=out.address + 4).status == Status.INVALID_PRP_OFFSET
    assert running(out=(1 << TENSORS.bus.address_bits) - 64).status == Status.DATA_TRANSFER_ERROR
    assert running(out=1 << 50).status == Status.DATA_TRANSFER_ERROR
    assert running(prp1=source.address + 4).status == Status.INVALID_PRP_OFFSET
    assert loading(16, size - 64, prp1=1 << 50).status == Status.DATA_TRANSFER_ERROR
    broken = bytearray(program.image[:4 * DESCRIPTOR_BYTES])
    broken[2 * DESCRIPTOR_BYTES + 4] ^= 1
    device.load_tensors(program.base, bytes(broken))
    assert said(running()) == (Status.BAD_DESCRIPTOR, 2, 31)
    pool = bytearray(program.image[:2 * DESCRIPTOR_BYTES])  # an operator that this engine lacks
    pool[DESCRIPTOR_BYTES] = 3
    body = struct.pack("<I", 3 | 1 << 8 | 1 << 24) + bytes(120)
    pool[DESCRIPTOR_BYTES:] = body + struct.pack("<I", zlib.crc32(body))
    device.load_tensors(program.base, bytes(pool))
    assert said(running()) == (Status.BAD_DESCRIPTOR, 1, 0)
    device.load_tensors(program.base, program.image)
    assert torch.equal(module(x[:1]), want)
    source.release()
    out.release()


def test_only_where_there_is_an_engine():
    with open_device(SMALL) as plain:
        for queue, opcode in ((ADMIN, TENSOR_LOAD), (INFER, TENSOR_RUN)):
            assert call(plain, queue, opcode, cdw10=16).status == Status.INVALID_OPCODE
        with pytest.raises(ConfigError, match=r"tensor\.rows"):
            DeviceFabric(plain)


def test_a_program_that_was_not_loaded_is_named(device):
    with pytest.raises(DataError, match="program = 64"):
        DeviceFabric(device).run(64, bytes(64))
