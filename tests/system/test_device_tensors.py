"""The tensor engine in the whole device, through NVMe commands: blocks of the despecklers and programs of random operators
against the integer model, lookups and block I/O beside them, and what is refused."""

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
from nearflash.contract.tensor import DESCRIPTOR_BYTES, TENSOR_LOAD, TENSOR_RUN, Descriptor, Op, pack, spans
from nearflash.offload import OffloadedModule
from nearflash.offload.fabric import DeviceFabric
from nearflash.reference.tensor import TensorModel
from nearflash.runtime import Device
from nearflash.sar.models.blocks import ConvBlock, Downsample, TransformerBlock, Upsample
from nearflash.sar.models.paper import PaperStage
from nearflash_sim.small.device import SMALL, load
from random_programs import OPS, random_program
from small_despeckler import TENSORS, scales
from torch import nn

ADMIN, INFER, BLOCK = 0, 1, 2


class Blocks(nn.Module):
    """`tiny`'s blocks, of 16 and 32 channels: convolutions at one resolution, attention over pooled keys at the next, and
    back by a pixel shuffle that adds the skip."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 16, 3, padding=1), ConvBlock(16)
        self.down, self.attend = Downsample(16, 32), TransformerBlock(32, 2, 2, pool=True, bias=True)
        self.up, self.side, self.last = Upsample(32, 16), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x):
        skip = self.block(self.stem(x))
        y = skip + self.up(self.attend(self.down(skip)))
        return self.last(y + torch.relu(self.side(skip)))  # an addition that no convolution's epilogue can do


class PaperBlocks(nn.Module):
    """`paper`'s blocks: patches of 7x7 and 3x3, keys by a convolution whose kernel is its stride, GELU after a depthwise
    convolution, back by transposed convolutions, tanh."""

    def __init__(self):
        super().__init__()
        self.first, self.second = PaperStage(1, 7, 16, 1, 1, 2), PaperStage(16, 3, 32, 2, 1, 2)
        self.up, self.block = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), ConvBlock(16, scale=0.1)
        self.full, self.tail = nn.ConvTranspose2d(16, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        skip = self.first(x)
        y = self.block(self.up(self.second(skip))) + skip
        return torch.tanh(self.out(self.tail(self.full(y))))


@pytest.fixture(scope="module")
def network():
    """The network, an input, and scales that fit it."""
    torch.manual_seed(5)
    model, x = Blocks().eval(), torch.randn(2, 3, 8, 12)
    return model, x, scales(model, (x[:1],))


@pytest.fixture
def device():
    with Device(GuardedSim(TENSORS), timeout=TIMEOUT) as d:
        yield d


def test_a_network_beside_lookups_and_block_io(device, network):
    """Every operator in a program, one command an image: the integer model's bytes; the lookups under way meanwhile are
    exact, and so is what lies in flash."""
    model, x, calibration = network
    want = OffloadedModule(model, TensorModel(TENSORS), "all", calibration)(x)
    module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
    matched = module.compiled(x[:1]).matched
    assert not matched.refused
    assert {o.op for o in matched.operators} == set(OPS)
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


def test_a_program_that_waits_holds_up_no_other_queue(device, network):
    model, x, calibration = network
    module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
    module(x[:1])
    (program,) = module.compiled(x[:1]).programs
    length = module.fabric._programs[program.base].output_bytes
    content = bytes(program.input_bytes)
    rng = np.random.default_rng(8)
    tables = random_tables(rng, TENSORS, 2)
    load(device, tables, preload=True)
    bags = random_bags(rng, tables, 2)
    running, waiting = (device.submit_tensors(program.base, content, length, BLOCK) for _ in range(2))
    for _ in range(3):
        assert_same_bits(device.result(submit_lookup(device, bags)), expected(device, tables, bags))
    assert running.command.completion is None
    device.driver.wait(waiting.command)
    assert device.tensors(running) == device.tensors(waiting)


def test_the_published_networks_blocks(device):
    torch.manual_seed(6)
    model, x = PaperBlocks().eval(), torch.rand(1, 1, 16, 24)
    calibration = scales(model, (x[:1],))
    module = OffloadedModule(model, DeviceFabric(device), "all", calibration)
    matched = module.compiled(x).matched
    assert not matched.refused
    assert [o.op.name for o in matched.operators if o.function] == ["DEPTHWISE", "DEPTHWISE", "CONV"]
    got = module(x)
    assert torch.equal(got, OffloadedModule(model, TensorModel(TENSORS), "all", calibration)(x))
    assert len(got.unique()) > 50
    with torch.no_grad():
        want = model(x)
    assert (got - want).square().mean().sqrt() < 0.1 * want.std()


def compare(device, seed, programs, operators):
    """Bits that differ in what ``programs`` of ``operators`` each wrote, and descriptors of each operator."""
    rng, model, fabric = np.random.default_rng(seed), TensorModel(TENSORS), DeviceFabric(device)
    counts = dict.fromkeys(OPS, 0)
    for n in range(programs):
        p = random_program(rng, TENSORS, [OPS[k] for k in rng.integers(0, len(OPS), operators)])
        for side in (model, fabric):
            side.load(0, p.image)
        got, want = (np.frombuffer(side.run(0, p.content), np.uint8) for side in (fabric, model))
        wrong = np.flatnonzero(got != want)
        ends = np.cumsum([-(-spans(d, TENSORS.tensor, TENSORS.beat_bytes)["y"][1] // 64) * 64 for d in p.descriptors])
        at = int(np.searchsorted(ends, wrong[0], "right")) if len(wrong) else 0
        assert not len(wrong), f"program {n}: {len(wrong)} of {len(got)} bytes, first of {p.descriptors[at]}"
        for d in p.descriptors:
            counts[Op(d["op"])] += 1
    return counts


def test_programs_of_random_operators(device):
    """Any operator after any other: nothing of one is left when the next begins."""
    counts = compare(device, 1, programs=6, operators=20)
    assert min(counts.values()) > 10


@pytest.mark.nightly
def test_200_random_shapes_of_every_operator(device):
    counts = compare(device, 2, programs=64, operators=24)
    assert min(counts.values()) >= 200


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
    attend = next(n for n, d in enumerate(program.descriptors, 1) if d["op"] == Op.ATTENTION)
    at = attend * DESCRIPTOR_BYTES
    fields = {k: v for k, v in program.descriptors[attend - 1].items() if k != "op"}
    fields |= {"heads": 8, "head_dim": 4}  # which are no whole beats
    halves = program.image[:at] + pack(Descriptor(Op.ATTENTION, **fields)) + program.image[at + DESCRIPTOR_BYTES:]
    device.load_tensors(program.base, halves)
    assert said(running()) == (Status.BAD_DESCRIPTOR, attend, 16)
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
