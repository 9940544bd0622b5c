"""Every kind of transaction on either AXI4 master, answered SLVERR and DECERR: each shows in a status, or in CSTS.CFS where
no completion can carry one, and the device works on.

What is left out is never read: out-of-band areas (the controller writes them for a recovery to come)."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from device_bench import assert_same_bits, call, open_device
from nearflash.contract import AdminOpcode, CommandError, DeviceTimeout, Opcode, Status, cores
from nearflash.contract.nvme import HOST_PAGE
from nearflash.contract.program import dram_weight_address
from nearflash.reference.model import IntegerModel
from test_device_models import ADMIN, compiled, dense_of, infer_raw, queries

MODEL = "neumf-dram"
FAR = 900  # a block far from the model's tables


class Bench:
    """A device with a model and a few blocks."""

    def __init__(self):
        self.spec, self.model = compiled(MODEL)[0].spec, compiled(MODEL)[1]
        self.dense, self.bags = queries(self.spec, 3, np.random.default_rng(5))
        self.want = IntegerModel(self.model).logits(self.dense, self.bags)[1]
        self.config = self.model.config
        self.device = open_device(self.config)
        self.host, self.dram = self.device.backend.device.host, self.device.backend.device.dram
        self.device.load(self.model)
        self.size = self.config.lba_bytes
        self.content = np.random.default_rng(6).bytes(16 * self.size)
        self.device.write(FAR, self.content)

    # -- what runs
    def block(self, opcode, lba=FAR, count=1, **kw):
        b = self.device.driver.buffer(bytes(count * self.size))
        p1, p2, lists = self.device.driver.prp(b)
        done = call(self.device, self.device._block, opcode,
                    **({"nsid": 1, "prp1": p1, "prp2": p2, "cdw10": lba, "cdw12": count - 1} | kw))
        for x in (b, *lists):
            x.release()
        return done.status

    def infer(self):
        return infer_raw(self.device, self.spec, dense_of(self.spec, self.dense), self.bags)[0].status

    def alive(self):
        """Logits, stored blocks and a new write are as they should be."""
        got = self.device.result(self.device.submit(dense_of(self.spec, self.dense), self.bags))
        assert_same_bits(got, self.want)
        self.device.write(FAR, self.content)
        self.device.flush()
        assert self.device.read(FAR, 16) == self.content
        assert self.device.driver.read_register("csts") == 1

    def admin(self, opcode, buffer_bytes=bytes(4096), **kw):
        b = self.device.driver.buffer(buffer_bytes)
        p1, p2, lists = self.device.driver.prp(b)
        done = call(self.device, ADMIN, opcode, **({"prp1": p1, "prp2": p2} | kw))
        for x in (b, *lists):
            x.release()
        return done.status

    def load_program(self):
        return self.admin(AdminOpcode.PROGRAM_LOAD, self.model.image, cdw10=len(self.model.image) // 4)

    # -- where things lie
    def ppn(self, lba):
        return struct.unpack("<I", self.dram.read(self.config.layout.map + 4 * lba, 4))[0] - 1

    def next_ppn(self):
        """The page the next write gets, which need not be the first of its block (that would be erased)."""
        f = self.config.flash
        while True:
            self.device.flush()  # the superblock is exact
            cursor = struct.unpack_from("<I", self.dram.read(self.config.layout.superblock, 8), 4)[0]
            if cursor % (f.channels * f.dies * f.pages) >= f.channels * f.dies:
                return cursor
            self.device.write(FAR, self.content[: self.size])

    def state(self, ppn):
        f = self.config.flash
        low = f.channels * f.dies
        return self.config.layout.block_state + (ppn // (low * f.pages) * low + ppn % low) * 8

    def leave_block(self):
        """Write until the log is in other blocks: a block whose state could be neither read nor written is lost."""
        f = self.config.flash
        for _ in range(f.channels * f.dies * f.pages):
            self.block(Opcode.WRITE)

    def uncached(self):
        """Empty the map cache."""
        self.device.reset()

    def with_buffer(self, fault, action, direction, page=0):
        """``action`` with a buffer whose host page ``page`` answers errors; it may write nothing elsewhere."""
        b = self.device.driver.buffer(bytes(16 * HOST_PAGE))
        fault(self.host, b.address + page * HOST_PAGE, HOST_PAGE, direction)
        status = action(b.address)
        self.clear()
        b.release()
        return status

    def clear(self):
        self.host.clear_faults()
        self.dram.clear_faults()


def _dram(place, run, direction, before=None):
    def action(b, fault):
        if before:
            before(b)
        address, n = place(b)
        fault(b.dram, address, n, direction)
        return run(b)
    return action


def _host(run, direction, page=0):
    return lambda b, fault: b.with_buffer(fault, lambda address: run(b, address), direction, page)


def _page(b, lba=FAR):
    return b.config.layout.flash + b.ppn(lba) * b.size, b.size


def _table_page(b):
    """All that table 0 lies on: its vectors are read, not its pages."""
    e = b.device.tables[0].extents[0]
    first = min(b.ppn(e.lba + k) for k in range(e.pages))
    last = max(b.ppn(e.lba + k) for k in range(e.pages))
    return b.config.layout.flash + first * b.size, (last - first + 1) * b.size


def _map(b, lba=FAR):
    return b.config.layout.map + 4 * lba // 64 * 64, 64


def _weights(b):
    core = next(c for c in cores(b.config.mlp.graph) if c.weights == "dram")
    return dram_weight_address(b.config, core), b.config.beat_bytes


def _prp_list(b, address):
    """A READ of more than two host pages, whose list is at ``address``."""
    return b.block(Opcode.READ, count=1, prp2=address) if b.size > 2 * HOST_PAGE else b.admin(
        AdminOpcode.PROGRAM_LOAD, prp2=address, cdw10=3 * HOST_PAGE // 4)


def _infer(b, address=None, **kw):
    return infer_raw(b.device, b.spec, dense_of(b.spec, b.dense), b.bags, **kw)[0].status


RANGE = dict(cdw10=0, cdw11=4, cdw12=0)
#: name -> (action, status). An action takes the bench and ``fault(memory, address, bytes, direction)``, which injects.
KINDS = {
    "host read: block data": (_host(lambda b, a: b.block(Opcode.WRITE, prp1=a), "read"), Status.DATA_TRANSFER_ERROR),
    "host read: ranges": (_host(lambda b, a: b.block(Opcode.DSM, prp1=a, **RANGE), "read"), Status.DATA_TRANSFER_ERROR),
    "host read: query": (_host(lambda b, a: _infer(b, prp1=a), "read"), Status.DATA_TRANSFER_ERROR),
    "host read: PRP list": (_host(_prp_list, "read"), Status.DATA_TRANSFER_ERROR),
    "host read: parameters": (_host(lambda b, a: b.admin(AdminOpcode.PROGRAM_LOAD, prp1=a, cdw10=256), "read"),
                              Status.DATA_TRANSFER_ERROR),
    "host read: table": (_host(lambda b, a: b.admin(AdminOpcode.TABLE_CREATE, prp1=a, cdw10=7), "read"),
                         Status.DATA_TRANSFER_ERROR),
    "host write: block data": (_host(lambda b, a: b.block(Opcode.READ, prp1=a), "write"), Status.DATA_TRANSFER_ERROR),
    "host write: logits": (_host(lambda b, a: _infer(b, cdw14=a & 0xFFFFFFFF, cdw15=a >> 32), "write"),
                           Status.DATA_TRANSFER_ERROR),
    "host write: identify": (_host(lambda b, a: b.admin(AdminOpcode.IDENTIFY, prp1=a, cdw10=1), "write"),
                             Status.DATA_TRANSFER_ERROR),
    "DRAM read: page": (_dram(_page, lambda b: b.block(Opcode.READ), "read"), Status.UNRECOVERED_READ),
    "DRAM read: vectors": (_dram(_table_page, _infer, "read"), Status.UNRECOVERED_READ),
    "DRAM read: block state, reading": (_dram(lambda b: (b.state(b.ppn(FAR)), 8), lambda b: b.block(Opcode.READ), "read"),
                                        Status.UNRECOVERED_READ),
    "DRAM read: block state, programming": (
        _dram(lambda b: (b.state(b.next_ppn()), 8), lambda b: b.block(Opcode.WRITE), "read"), Status.WRITE_FAULT),
    "DRAM read: map, block I/O": (_dram(_map, lambda b: b.block(Opcode.READ), "read", Bench.uncached),
                                  Status.UNRECOVERED_READ),
    "DRAM read: map, lookup": (_dram(lambda b: _map(b, b.device.tables[0].extents[0].lba), _infer, "read", Bench.uncached),
                               Status.UNRECOVERED_READ),
    "DRAM read: weights": (_dram(_weights, _infer, "read"), Status.UNRECOVERED_READ),
    "DRAM write: page": (_dram(lambda b: (b.config.layout.flash + b.next_ppn() * b.size, b.size),
                               lambda b: b.block(Opcode.WRITE), "write"), Status.WRITE_FAULT),
    "DRAM write: out-of-band area": (
        _dram(lambda b: (b.config.layout.oob + b.next_ppn() * b.config.flash.oob_bytes, b.config.flash.oob_bytes),
              lambda b: b.block(Opcode.WRITE), "write"), Status.WRITE_FAULT),
    "DRAM write: block state": (_dram(lambda b: (b.state(b.next_ppn()), 8), lambda b: b.block(Opcode.WRITE), "write"),
                                Status.WRITE_FAULT),
    "DRAM write: map, writing": (_dram(_map, lambda b: b.block(Opcode.WRITE), "write"), Status.WRITE_FAULT),
    "DRAM write: superblock": (_dram(lambda b: (b.config.layout.superblock, 16), lambda b: b.block(Opcode.FLUSH), "write"),
                               Status.WRITE_FAULT),
    "DRAM write: weights": (_dram(_weights, Bench.load_program, "write"), Status.WRITE_FAULT),
}


@pytest.fixture(scope="module")
def bench():
    b = Bench()
    yield b
    b.device.close()


@pytest.mark.parametrize("decode", [False, True], ids=["slverr", "decerr"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_shows_in_the_status_of_its_command(bench, kind, decode):
    action, status = KINDS[kind]

    def fault(memory, address, n, direction):
        memory.inject_fault(address, n, read=direction == "read", write=direction == "write", decode=decode)

    got = action(bench, fault)
    bench.clear()
    assert got == status
    if "block state" in kind and "reading" not in kind:
        bench.leave_block()
    if kind in ("host read: parameters", "host read: PRP list", "DRAM write: weights"):
        assert bench.infer() == Status.NO_PROGRAM, "what was loaded in part must not be used"
        assert bench.load_program() == Status.SUCCESS
    bench.alive()


@pytest.mark.parametrize("decode", [False, True], ids=["slverr", "decerr"])
@pytest.mark.parametrize("ring", ["sq", "cq"])
def test_an_error_on_a_ring_shows_in_csts(bench, ring, decode):
    queue = bench.device.driver._rings[bench.device._block]
    bench.host.inject_fault(getattr(queue, ring).address, 4096, read=ring == "sq", write=ring == "cq", decode=decode)
    command = bench.device.driver.submit(bench.device._block, Opcode.FLUSH, "flush", nsid=1)
    with pytest.raises(DeviceTimeout, match="CFS"):
        bench.device.driver.wait(command, timeout=20_000)
    assert bench.device.driver.read_register("csts") == 3
    bench.clear()
    bench.device.reset()
    bench.alive()


@pytest.mark.parametrize("decode", [False, True], ids=["slverr", "decerr"])
def test_a_superblock_that_cannot_be_read_shows_in_writes_and_flushes(bench, decode):
    bench.device.flush()
    bench.dram.inject_fault(bench.config.layout.superblock, 16, write=False, decode=decode)
    bench.device.reset()
    bench.clear()
    stored = bench.dram.read(bench.config.layout.superblock, 16)
    assert bench.device.read(FAR, 16) == bench.content
    with pytest.raises(CommandError, match="CAPACITY_EXCEEDED"):
        bench.device.write(FAR, bytes(bench.size))
    with pytest.raises(CommandError, match="WRITE_FAULT"):
        bench.device.flush()
    assert bench.dram.read(bench.config.layout.superblock, 16) == stored
    bench.device.reset()
    bench.alive()
