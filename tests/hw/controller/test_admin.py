"""IDENTIFY, and how admin commands and inference keep out of each other's way."""

from dataclasses import replace

import pytest
from nearflash.contract import AdminOpcode, DeviceConfig, Opcode, RowFormat, Status, TableSpec
from nearflash.contract.identify import IDENTIFY_BYTES, identify
from nearflash.contract.nvme import sqe
from nearflash.contract.table import Extent
from nearflash_hw.controller.admin import Admin
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel
from nearflash_sim.models.nvme_host import Host

TINY = DeviceConfig.preset("tiny")


def beat(n):
    return replace(TINY, beat_bytes=n, lookup=replace(TINY.lookup, lanes=n // 4))


def run_identify(config, commands, stall=0.0, fail=lambda a: False):
    """(completions, memory) of IDENTIFY commands (cns, prp1, prp2) played on the admin engine."""
    dut = Admin(config)
    memory = MemoryModel(config.beat_bytes, stall=stall, seed=2, fail=fail)
    items = [{"opcode": AdminOpcode.IDENTIFY, "cid": k, "prp1": p1, "prp2": p2, "cdw10": cns}
             for k, (cns, p1, p2) in enumerate(commands)]
    src, sink = StreamSource(dut.cmd, items, stall, seed=3), StreamSink(dut.completion, stall, seed=4)
    simulate(dut, [src, sink, memory.write_port(dut.identify_write)],
             until=lambda: len(sink.items) == len(items), max_cycles=20_000)
    assert memory.pending == 0
    assert [(c["qid"], c["cid"], c["dw0"], c["dw1"]) for c in sink.items] == [(0, k, 0, 0) for k in range(len(items))]
    return [c["status"] for c in sink.items], memory


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("stall", [0.0, 0.2])
def test_identify_pages_equal_the_contract(width, stall):
    config = beat(width)
    statuses, memory = run_identify(
        config, [(cns, 0x10000 + k * 0x2000, 0xDEAD000) for k, cns in enumerate((0x00, 0x01, 0xC0))], stall)
    assert statuses == [0, 0, 0]
    for k, cns in enumerate((0x00, 0x01, 0xC0)):
        assert memory.read(0x10000 + k * 0x2000, IDENTIFY_BYTES) == identify(config, cns)
    assert len(memory.bytes) == 3 * IDENTIFY_BYTES


@pytest.mark.parametrize("offset", [32, 512, 4064])
def test_identify_splits_at_the_host_page(offset):
    statuses, memory = run_identify(TINY, [(0x01, 0x10000 + offset, 0x50000), (0x01, 0x90000, 0)])
    assert statuses == [0, 0]
    page = identify(TINY, 0x01)
    assert memory.read(0x10000 + offset, 4096 - offset) == page[: 4096 - offset]
    assert memory.read(0x50000, offset) == page[4096 - offset :]
    assert memory.read(0x90000, 4096) == page
    assert len(memory.bytes) == 8192


def test_identify_refuses():
    good = (0xC0, 0x70000, 0)
    bad = [
        ((0x02, 0x10000, 0), Status.INVALID_FIELD), ((0xFF, 0x10000, 0), Status.INVALID_FIELD),
        ((0x00, 0x10004, 0x20000), Status.INVALID_PRP_OFFSET), ((0x00, 0x10008, 0x20008), Status.INVALID_PRP_OFFSET),
        ((0x00, 1 << 40, 0), Status.DATA_TRANSFER_ERROR), ((0x01, 0x66000, 0), Status.DATA_TRANSFER_ERROR),
    ]
    commands = [c for b, _ in bad for c in (b, good)]
    statuses, memory = run_identify(TINY, commands, fail=lambda a: a == 0x66FF8)
    assert statuses == [s for _, status in bad for s in (status, 0)]
    assert memory.read(0x70000, 4096) == identify(TINY, 0xC0)


def create(host, cid, table, spec):
    host.memory.write(0x40_0000, spec.descriptor(TINY))
    return sqe(AdminOpcode.TABLE_CREATE, cid, prp1=0x40_0000, cdw10=table)


SPEC = TableSpec(rows=20, dim=8, format=RowFormat.FP32, extents=(Extent(0, 4, 2),), page_rows=16)


def test_table_changes_wait_for_inference_and_hold_it_back():
    config = replace(TINY, host=replace(TINY.host, queue_pairs=3))
    host = Host(config)
    host.infer.complete = False

    async def scenario(ctx, host):
        await host.start(ctx)
        for i in range(2):
            host.put(1, sqe(Opcode.LOOKUP, i, nsid=1))
        await host.ring_sq(ctx, 1)
        while len(host.infer.taken) < 2:
            await ctx.tick()
        host.put(0, create(host, 9, 3, SPEC))
        await host.ring_sq(ctx, 0)
        for _ in range(60):
            await ctx.tick()
        host.put(1, sqe(Opcode.LOOKUP, 2, nsid=1))  # held back, and block I/O goes on meanwhile
        await host.ring_sq(ctx, 1)
        for _ in range(5):
            assert (await host.command(ctx, 2, lambda cid: sqe(Opcode.FLUSH, cid, nsid=1)))[0] == 0
        assert len(host.infer.taken) == 2
        assert not host.tables
        ctx.set(host.dut.infer_idle, 0)
        host.infer.complete = True
        for i in range(2):
            assert (await host.completion(ctx, 1))[1] == i
        for _ in range(500):
            await ctx.tick()
        assert not host.tables  # the engine is not idle yet
        assert len(host.infer.taken) == 2
        ctx.set(host.dut.infer_idle, 1)
        assert (await host.completion(ctx, 0))[:2] == (0, 9)
        assert [(t.table, t.open) for t in host.tables] == [(3, 1)]
        assert (await host.completion(ctx, 1))[:2] == (0, 2)

    host.run(scenario)


@pytest.mark.parametrize("seed", range(2))
def test_table_changes_among_inference_traffic(seed):
    """The watcher in the host model fails the test if a table changes while a lookup is in flight."""
    host = Host(TINY, stall=0.2, seed=seed)
    host.infer.delay = 40

    async def scenario(ctx, host):
        await host.start(ctx)
        sent = got = 0
        for turn in range(8):
            for _ in range(3):
                host.put(1, sqe(Opcode.LOOKUP, sent, nsid=1))
                sent += 1
            await host.ring_sq(ctx, 1)
            for _ in range(7 * turn):
                await ctx.tick()
            make = (lambda cid, t=turn: create(host, cid, t // 2, replace(SPEC, extents=(Extent(0, 8 * t, 2),)))) \
                if turn % 2 == 0 else (lambda cid, t=turn: sqe(AdminOpcode.TABLE_DELETE, cid, cdw10=t // 2))
            assert (await host.command(ctx, 0, make))[0] == 0
            while got < sent:
                assert (await host.completion(ctx, 1))[:2] == (0, got)
                got += 1

    host.run(scenario, max_cycles=30_000)
    assert [(t.table, t.open) for t in host.tables] == [(t // 2, 1 - t % 2) for t in range(8)]
