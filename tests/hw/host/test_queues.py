"""Rings: wrap-around and phase, room for completions, fairness, interrupts, reset, bad doorbells."""

import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig, Opcode, Status
from nearflash.contract.nvme import CQE_BYTES, sqe
from nearflash.contract.registers import doorbell, queue_register
from nearflash_sim.models.nvme_host import OFFSET, Host

TINY = DeviceConfig.preset("tiny")


def with_host(config=TINY, **kw):
    return replace(config, host=replace(config.host, **kw))


def beat(config, n):
    return replace(config, beat_bytes=n, lookup=replace(config.lookup, lanes=n // 4))


def flush(cid):
    return sqe(Opcode.FLUSH, cid, nsid=1)


def lookup(cid):
    return sqe(Opcode.LOOKUP, cid, nsid=1, cdw10=8, cdw11=1, cdw12=1)


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_wraps_with_the_phase_bit(width, size):
    rng = random.Random(size)
    host = Host(beat(TINY, width), stall=0.2, seed=size)
    total = 3 * size + 1

    async def scenario(ctx, host):
        await host.start(ctx, {1: size})
        sent = seen = 0
        while seen < total:
            n = min(rng.randint(1, size - 1), total - sent, size - 1 - (sent - seen))
            for _ in range(n):
                host.put(1, flush(0x8000 + sent))
                sent += 1
            await host.ring_sq(ctx, 1)
            for _ in range(rng.randint(1, sent - seen)):
                status, cid, dw0, dw1 = await host.completion(ctx, 1, ack=rng.random() < 0.5)
                assert (status, cid) == (0, 0x8000 + seen)
                assert (dw0, dw1) == (0x12345678, 0xFFFFFFFF ^ cid)
                seen += 1
            await host.ring_cq(ctx, 1)

    host.run(scenario, max_cycles=60_000)
    assert [c.cid for c in host.block.taken] == [0x8000 + i for i in range(total)]
    assert host.poll(1) is None


def test_sq_head_in_completions_frees_the_ring():
    host = Host(TINY)

    async def scenario(ctx, host):
        await host.start(ctx, {1: 4})
        for i in range(9):
            host.put(1, flush(i))
            await host.ring_sq(ctx, 1)
            while (c := host.poll(1)) is None:
                await ctx.tick()
            assert c["sqhd"] == (i + 1) % 4
            await host.ring_cq(ctx, 1)

    host.run(scenario)


def test_an_unseen_completion_is_never_overwritten():
    """The host rings the SQ doorbell over and over but acknowledges nothing: exactly size - 1 commands start."""
    host = Host(TINY)
    size = 4

    async def scenario(ctx, host):
        await host.start(ctx, {1: size})
        for i in range(3):
            host.put(1, flush(i))
        await host.ring_sq(ctx, 1)
        for _ in range(300):
            await ctx.tick()
        assert len(host.block.taken) == size - 1
        ring = host.rings[1]
        for i in range(3, 6):  # the SQ has room again, the CQ has not
            host.put(1, flush(i))
        await host.ring_sq(ctx, 1)
        before = host.memory.read(ring.cq, size * CQE_BYTES)
        for _ in range(300):
            await ctx.tick()
        assert len(host.block.taken) == size - 1
        assert host.memory.read(ring.cq, size * CQE_BYTES) == before
        # the admin queue goes on meanwhile
        assert (await host.command(ctx, 0, lambda cid: sqe(0x7F, cid)))[0] == Status.INVALID_OPCODE
        for i in range(6):  # each acknowledged entry lets one more command in
            assert (await host.completion(ctx, 1))[1] == i
            for _ in range(100):
                await ctx.tick()
            assert len(host.block.taken) == min(6, size + i)

    host.run(scenario)


def test_commands_in_flight_reserve_their_completions():
    host = Host(TINY)
    host.block.complete = False

    async def scenario(ctx, host):
        await host.start(ctx, {1: 4})
        for i in range(3):
            host.put(1, flush(i))
        await host.ring_sq(ctx, 1)
        for _ in range(200):
            await ctx.tick()
        assert len(host.block.taken) == 3
        host.rings[1].tail = 2  # the SQ head has moved: two more entries at places 3 and 0
        for i in (3, 4):
            host.rings[1].tail = i % 4
            host.put(1, flush(i))
        await host.ring_sq(ctx, 1)
        for _ in range(200):
            await ctx.tick()
        assert len(host.block.taken) == 3
        host.block.complete = True
        for i in range(5):
            assert (await host.completion(ctx, 1))[1] == i

    host.run(scenario)


def test_queues_take_turns():
    config = with_host(queue_pairs=4)
    host = Host(config)
    host.block.delay = 0

    async def scenario(ctx, host):
        await host.start(ctx)
        host.block.accepts = set()
        for q in (1, 2, 3):
            for i in range(8):
                host.put(q, flush(100 * q + i))
            await host.ring_sq(ctx, q)
        for _ in range(200):
            await ctx.tick()
        host.block.accepts = {0, 1}
        for q in (1, 2, 3):
            for i in range(8):
                assert (await host.completion(ctx, q))[:2] == (0, 100 * q + i)

    host.run(scenario)
    order = [c.qid for c in host.block.taken]
    for k in range(1, 20):
        assert sorted(order[k : k + 3]) == [1, 2, 3], order


def test_a_busy_target_keeps_no_other_queue_waiting():
    config = with_host(queue_pairs=4)
    host = Host(config)

    async def scenario(ctx, host):
        host.infer.accepts = set()
        await host.start(ctx)
        for q in (1, 3):  # the second of these finds the inference path taken
            for i in range(4):
                host.put(q, lookup(10 * q + i))
            await host.ring_sq(ctx, q)
        for _ in range(200):
            await ctx.tick()
        for _ in range(20):
            assert (await host.command(ctx, 2, flush))[0] == 0
            assert (await host.command(ctx, 0, lambda cid: sqe(0x7F, cid)))[0] == Status.INVALID_OPCODE
        assert not host.infer.taken
        host.infer.accepts = {0}
        for q in (1, 3):
            for i in range(4):
                assert (await host.completion(ctx, q))[:2] == (0, 10 * q + i)
        assert [c.qid for c in host.infer.taken] in ([1, 3] * 4, [3, 1] * 4)

    host.run(scenario)


def test_lists_of_ranges_keep_no_block_command_waiting():
    """Dataset management waits for its own path, which may be taken for long."""
    host = Host(with_host(queue_pairs=4))

    async def scenario(ctx, host):
        host.block.accepts = {0, 1}
        await host.start(ctx)
        for q in (1, 3):
            for i in range(3):
                host.put(q, sqe(Opcode.DSM, 10 * q + i, nsid=1, cdw11=4))
            await host.ring_sq(ctx, q)
        for _ in range(200):
            await ctx.tick()
        for _ in range(10):
            assert (await host.command(ctx, 2, flush))[0] == 0
        assert len(host.block.taken) == 10
        host.block.accepts = {0, 1, 2}
        for q in (1, 3):
            for i in range(3):
                assert (await host.completion(ctx, q))[:2] == (0, 10 * q + i)

    host.run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_waiting_queues_get_a_busy_target_in_turn(seed):
    """A slow inference path, one queue of block commands between: no queue waits for more than one command of each other."""
    config = with_host(queue_pairs=6)
    host = Host(config, seed=seed, latency=3 + seed)
    queues = (1, 2, 4, 5)

    async def scenario(ctx, host):
        await host.start(ctx)
        host.infer.accepts = set()
        for q in queues:
            for i in range(6):
                host.put(q, lookup(10 * q + i))
            await host.ring_sq(ctx, q)
        for i in range(15):
            host.put(3, flush(i))
        await host.ring_sq(ctx, 3)
        while len(host.infer.taken) < 24:
            before = len(host.infer.taken)
            host.infer.accepts = {0}
            while len(host.infer.taken) == before:
                await ctx.tick()
            host.infer.accepts = set()
            for _ in range(37 + 11 * seed):
                await ctx.tick()
        for q in queues:
            for i in range(6):
                assert (await host.completion(ctx, q))[:2] == (0, 10 * q + i)

    host.run(scenario, max_cycles=30_000)
    order = [c.qid for c in host.infer.taken]
    for k in range(2, 20):
        assert sorted(order[k : k + 4]) == list(queues), order


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_random_traffic_on_every_queue(stall):
    config = with_host(queue_pairs=5, queue_entries=8)
    rng = random.Random(3)
    host = Host(config, stall=stall, seed=4)
    want = {q: [] for q in range(5)}

    async def scenario(ctx, host):
        await host.start(ctx, {1: 3, 2: 8, 3: 2, 4: 7})
        left = {q: 12 for q in range(5)}
        pending = {q: [] for q in range(5)}
        while any(left.values()) or any(pending.values()):
            q = rng.randrange(5)
            ring = host.rings[q]
            if left[q] and len(pending[q]) < ring.size - 1:
                cid = rng.getrandbits(16)
                bad = q == 0 or rng.random() < 0.2
                host.put(q, sqe(0x55, cid) if bad else flush(cid) if rng.random() < 0.6 else lookup(cid))
                pending[q].append((Status.INVALID_OPCODE if bad else 0, cid))
                left[q] -= 1
                await host.ring_sq(ctx, q)
            await ctx.tick()
            q = rng.randrange(5)
            while (c := host.poll(q)) is not None:
                got = (int(c["sf"]) >> 1, int(c["cid"]))
                assert got in pending[q]
                pending[q].remove(got)
                want[q].append(got)
                await host.ring_cq(ctx, q)

    host.run(scenario, max_cycles=60_000)
    assert all(len(v) == 12 for v in want.values())
    assert not host.block.open
    assert not host.infer.open


def test_interrupt_follows_unseen_completions_and_mask():
    host = Host(TINY)

    async def settle(ctx):
        for _ in range(60):
            await ctx.tick()

    async def scenario(ctx, host):
        irq = host.dut.irq
        await host.start(ctx)
        await settle(ctx)
        assert ctx.get(irq) == 0
        for i in range(2):
            host.put(1, flush(i))
        await host.ring_sq(ctx, 1)
        while not ctx.get(irq):
            await ctx.tick()
        assert host.poll(1) is not None  # the entry is in memory when the interrupt rises
        await settle(ctx)
        await host.axil.write(ctx, OFFSET["intms"], 0b10)
        await settle(ctx)
        assert ctx.get(irq) == 0
        await host.axil.write(ctx, OFFSET["intms"], 0b01)
        await settle(ctx)
        assert ctx.get(irq) == 1
        await host.ring_cq(ctx, 1)
        await settle(ctx)
        assert ctx.get(irq) == 1  # one more
        assert host.poll(1) is not None
        await host.ring_cq(ctx, 1)
        await settle(ctx)
        assert ctx.get(irq) == 0

    host.run(scenario)


def test_doorbells_out_of_range_are_ignored():
    host = Host(TINY)

    async def scenario(ctx, host):
        await host.start(ctx, {1: 5})
        for value in (5, 6, 15, 16, 21, 0xFFFF, 0x10001):
            await host.axil.write(ctx, doorbell(1, False), value)
            await host.axil.write(ctx, doorbell(1, True), value)
        for value in (1, 2, 4):  # acknowledges completions that were never posted
            await host.axil.write(ctx, doorbell(1, True), value)
        for _ in range(100):
            await ctx.tick()
        assert not host.block.taken
        for _ in range(12):
            assert (await host.command(ctx, 1, flush))[0] == 0
            await host.axil.write(ctx, doorbell(1, True), (host.rings[1].head + 1) % 5)
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 1

    host.run(scenario)


def test_disable_drains_and_forgets():
    host = Host(TINY)

    async def scenario(ctx, host):
        await host.start(ctx, {1: 6})
        for _ in range(4):
            assert (await host.command(ctx, 1, flush))[0] == 0
        host.block.complete = False
        for i in range(3):
            host.put(1, flush(0x700 + i))
        await host.ring_sq(ctx, 1)
        for _ in range(100):
            await ctx.tick()
        assert len(host.block.taken) == 7
        await host.axil.write(ctx, OFFSET["cc"], 0)
        for _ in range(50):
            assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 1  # commands are still in flight
            assert ctx.get(host.dut.enabled) == 1
        before = host.memory.read(host.rings[1].cq, 6 * CQE_BYTES)
        host.block.complete = True
        await host.wait_ready(ctx, 0)
        assert host.memory.read(host.rings[1].cq, 6 * CQE_BYTES) == before  # their completions were dropped
        assert ctx.get(host.dut.irq) == 0
        assert ctx.get(host.dut.enabled) == 0
        for _life in range(2):  # a new life starts at entry 0 and phase 1
            await host.start(ctx, {1: 3})
            for _ in range(4):
                assert (await host.command(ctx, 1, flush))[0] == 0
            await host.stop(ctx)

    host.run(scenario)


def test_no_fetch_before_enable_and_ready():
    host = Host(TINY)

    async def scenario(ctx, host):
        await host.start(ctx)
        await host.stop(ctx)
        ctx.set(host.dut.ftl_ready, 0)
        await host.axil.write(ctx, doorbell(1, False), 1)  # while disabled: forgotten
        await host.axil.write(ctx, OFFSET["cc"], 1)
        for _ in range(100):
            await ctx.tick()
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 0
        assert ctx.get(host.dut.enabled) == 1
        assert host.memory.pending == 0
        ctx.set(host.dut.ftl_ready, 1)
        await host.wait_ready(ctx, 1)
        for _ in range(100):
            await ctx.tick()
        assert not host.block.taken
        for ring in host.rings.values():
            ring.tail = ring.head = 0
        assert (await host.command(ctx, 1, flush))[0] == 0

    host.run(scenario)


@pytest.mark.parametrize(("ring", "entry_bytes"), [("sq", 64), ("cq", 16)])
def test_a_ring_that_runs_beyond_the_bus_is_fatal_where_it_does(ring, entry_bytes):
    """Its entries in reach work; the next one is not read from or written to address 0."""
    host = Host(with_host(queue_entries=8192 // entry_bytes))
    base = (1 << 40) - 4096

    async def scenario(ctx, host):
        await host.start(ctx)
        setattr(host.rings[1], ring, base)
        await host.axil.write(ctx, queue_register(1, f"{ring}_base_lo"), base & 0xFFFF_FFFF)
        await host.axil.write(ctx, queue_register(1, f"{ring}_base_hi"), base >> 32)
        for _ in range(4096 // entry_bytes):
            assert (await host.command(ctx, 1, flush))[0] == 0
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 1
        host.put(1, flush(1))
        await host.ring_sq(ctx, 1)
        for _ in range(200):
            await ctx.tick()
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 3
        assert not any(host.memory.read(0, 64))

    host.run(scenario, max_cycles=60_000)


@pytest.mark.parametrize("where", ["sq", "cq", "sq_beyond", "cq_beyond"])
def test_bus_errors_on_a_ring_are_fatal_until_reset(where):
    bad = {"on": True}
    window = {"sq": 0x11_0000, "cq": 0x11_0001_0000}.get(where)
    host = Host(TINY, fail=lambda a: bad["on"] and window is not None and window <= a < window + 0x1000)

    async def scenario(ctx, host):
        await host.start(ctx)
        if "beyond" in where:
            await host.axil.write(ctx, queue_register(1, where[:2] + "_base_hi"), 0x100)
        host.put(1, flush(1))
        await host.ring_sq(ctx, 1)
        for _ in range(200):
            await ctx.tick()
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 3
        assert len(host.block.taken) == int("cq" in where)
        host.put(0, sqe(0x7F, 2))
        await host.ring_sq(ctx, 0)
        for _ in range(100):
            await ctx.tick()
        assert host.poll(0) is None
        bad["on"] = False
        await host.stop(ctx)
        await host.start(ctx)
        assert (await host.axil.read(ctx, OFFSET["csts"]))[0] == 1
        assert (await host.command(ctx, 1, flush))[0] == 0

    host.run(scenario)
