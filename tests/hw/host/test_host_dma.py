"""PRP walking and host reads against a Python model of NVMe's PRP rules."""

import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.host.host_dma import HostReader
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

PAGE = 4096


def layout_buffer(mem, rng, free, length, offset):
    """Scatter ``length`` random bytes over the ``free`` pages of ``mem``; returns (prp1, prp2, content)."""
    content = rng.randbytes(length)
    pages, done, off = [], 0, offset
    while done < length:
        base = free.pop() * PAGE
        n = min(PAGE - off, length - done)
        mem.write(base + off, content[done : done + n])
        pages.append(base + off)
        done, off = done + n, 0
    if len(pages) == 1:
        return pages[0], 0, content
    if len(pages) == 2:
        return pages[0], pages[1], content
    # lists of at most 512 entries, the first one starting late in its page so that chaining is exercised
    start = rng.choice([0, 8 * 509, 8 * 510])
    rest = pages[1:]
    base = free.pop() * PAGE
    prp2 = base + start
    addr = prp2
    while rest:
        if addr % PAGE == PAGE - 8 and len(rest) > 1:
            base = free.pop() * PAGE
            mem.write(addr, base.to_bytes(8, "little"))
            addr = base
        mem.write(addr, rest.pop(0).to_bytes(8, "little"))
        addr += 8
    return pages[0], prp2, content


def read_all(config, mem, requests, n_last, stall=0.0, max_cycles=40000):
    dut = reused(HostReader, config)
    src = StreamSource(dut.req, requests, stall, seed=3)
    sink = StreamSink(dut.data, stall, seed=4)
    simulate(dut, [src, sink, mem.read_port(dut.list_read), mem.read_port(dut.data_read)],
             until=lambda: sum(i["last"] for i in sink.items) == n_last, max_cycles=max_cycles)
    assert mem.pending == 0
    out, cur = [], []
    for i in sink.items:
        cur.append(i)
        if i["last"]:
            out.append(cur)
            cur = []
    assert not cur
    return out


@pytest.mark.parametrize("beat", [8, 16, 32])
@pytest.mark.parametrize("stall", [0.0, 0.2])
def test_reads_every_length_and_offset(beat, stall):
    config = DeviceConfig.preset("tiny")
    config = replace(config, beat_bytes=beat, lookup=replace(config.lookup, lanes=beat // 4, accumulators=128))
    rng = random.Random(beat)
    mem = MemoryModel(beat, latency=7, stall=stall, seed=1)
    reqs, contents = [], []
    free = list(range(16, 200))
    rng.shuffle(free)
    for length, offset in [(4, 0), (beat, 4096 - beat), (beat + 4, 4096 - beat), (4096, 0), (4100, beat),
                           (5 * 4096 - 60, 64), (7 * 4096, 0)]:
        p1, p2, content = layout_buffer(mem, rng, free, length, offset)
        reqs.append({"prp1": p1, "prp2": p2, "length": length})
        contents.append(content)
    got = read_all(config, mem, reqs, len(reqs), stall)
    for transfer, content in zip(got, contents, strict=True):
        raw = b"".join(b["data"].to_bytes(beat, "little") for b in transfer)
        assert len(transfer) == -(-len(content) // beat)
        assert raw[: len(content)] == content
        assert all(b["status"] == 0 for b in transfer)


def test_bad_entries_end_the_transfer_and_the_next_works():
    config = DeviceConfig.preset("tiny")
    mem = MemoryModel(8, fail=lambda a: 0x80000 <= a < 0x81000)
    mem.write(0x3000, b"".join(a.to_bytes(8, "little") for a in (0x5000, 0x6008, 0x7000)))
    mem.write(0x9000, bytes(range(16)))
    good = {"prp1": 0x9000, "prp2": 0, "length": 16}
    cases = [
        ({"prp1": 0x9004, "prp2": 0, "length": 16}, Status.INVALID_PRP_OFFSET),
        ({"prp1": 0x9000, "prp2": 0xA010, "length": 5000}, Status.INVALID_PRP_OFFSET),
        ({"prp1": 0x9000, "prp2": 0x3004, "length": 20000}, Status.INVALID_PRP_OFFSET),
        ({"prp1": 0x9000, "prp2": 0x3000, "length": 16384}, Status.INVALID_PRP_OFFSET),
        ({"prp1": 1 << 40, "prp2": 0, "length": 8}, Status.DATA_TRANSFER_ERROR),
        ({"prp1": 0x80000, "prp2": 0, "length": 16}, Status.DATA_TRANSFER_ERROR),
        ({"prp1": 0x9000, "prp2": 0x80000, "length": 20000}, Status.DATA_TRANSFER_ERROR),
    ]
    reqs = [r for c, _ in cases for r in (c, good)]
    got = read_all(config, mem, reqs, len(reqs))
    for (_, status), bad, ok in zip(cases, got[::2], got[1::2], strict=True):
        assert bad[-1]["status"] == status, (status, len(bad))
        assert ok[-1]["status"] == 0
        assert b"".join(b["data"].to_bytes(8, "little") for b in ok) == bytes(range(16))


def test_a_user_that_takes_nothing_does_not_hold_up_the_bus():
    config = DeviceConfig.preset("tiny")
    mem = MemoryModel(8, latency=7)
    dut = reused(HostReader, config)
    taken = []

    async def watch(ctx):
        async for _, _, valid, ready in ctx.tick().sample(dut.data_read.rsp.valid, dut.data_read.rsp.ready):
            assert ready or not valid, "the response channel was held up"
            taken.append(valid)

    src = StreamSource(dut.req, [{"prp1": 0x10000, "prp2": 0x20000, "length": 8192}])
    simulate(dut, [src, watch, mem.read_port(dut.list_read), mem.read_port(dut.data_read)],
             until=lambda: len(taken) > 600, max_cycles=1000)
    assert mem.pending == 0
    assert 0 < sum(taken) <= 64
