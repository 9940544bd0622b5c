"""A reset in the middle of bursts: the port sees whole bursts, the memory no byte that the device didn't send, and the
device's next life none of its former one."""

import random

import pytest
from axi_traffic import check, traffic
from nearflash_hw.boards.reset_guard import ResetGuard
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiMaster, AxiSlave, Burst
from nearflash_sim.models.axi_slave import pattern

BEAT = 8
DRAIN = 3000  # cap on the cycles in which bursts under way end


def guard(outstanding=63, outstanding_data=16):
    return reused(ResetGuard, 32, 8 * BEAT, 5, outstanding, outstanding_data)


@pytest.mark.parametrize("shy", [False, True])
@pytest.mark.parametrize(("stall", "latency", "limits"), [(0.0, 0, (63, 16)), (0.4, 20, (63, 16)), (0.2, 60, (2, 1)),
                                                          (0.0, 60, (1, 16))])
def test_an_open_guard_changes_nothing(stall, latency, limits, shy):
    dut, plan = guard(*limits), traffic((stall, limits), BEAT, 256, count=12, ids=32)
    master = AxiMaster(dut.i, plan.reads, plan.writes, stall, seed=1)
    memory = AxiSlave(dut.o, BEAT, latency=latency, stall=stall, seed=2, shy=shy, fail=lambda a: a // BEAT % 61 == 7)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=20_000)
    check(plan, master, memory, BEAT)


def test_one_beat_per_cycle():
    dut, total = guard(), 480
    reads = [Burst(k % 32, k * 128, 16, 3) for k in range(total // 16)]
    writes = [Burst(k % 32, k * 128, 16, 3, words=[(k, 0xFF)] * 16) for k in range(total // 16)]
    master, memory = AxiMaster(dut.i, reads, writes), AxiSlave(dut.o, BEAT)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=total + 30)
    for busy in master.busy.values():
        assert len(busy) == busy[-1] - busy[0] + 1 == total


class Reset:
    """Closes the guard at cycle ``at``, resets the device once no burst is under way, opens it some cycles later."""

    def __init__(self, dut, master, at, hung, rng):
        self.dut, self.master, self.at, self.hung, self.rng, self.busy_at_end = dut, master, at, hung, rng, None

    async def process(self, ctx):
        await ctx.tick().repeat(self.at)
        if self.hung:
            self.master.stall = 1.0  # the device sends and takes nothing more
            await ctx.tick().repeat(self.rng.randrange(1, 4))
        self.master.parted = True
        ctx.set(self.dut.closed, 1)
        for _ in range(DRAIN):
            await ctx.tick()
            if not ctx.get(self.dut.busy):
                break
        self.busy_at_end = ctx.get(self.dut.busy)
        self.master.dead = True
        await ctx.tick().repeat(2 + self.rng.randrange(3))
        ctx.set(self.dut.closed, 0)


@pytest.mark.parametrize("hung", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_reset_at_any_moment(seed, hung):
    rng, dut = random.Random(seed), guard()
    first, second = traffic((seed, 1), BEAT, 16, count=80, ids=32), traffic((seed, 2), BEAT, 16, count=8, ids=32)
    stall = rng.choice([0.0, 0.2, 0.5])
    old, new = (AxiMaster(dut.i, t.reads, t.writes, stall, seed=seed + k) for k, t in enumerate((first, second)))
    memory = AxiSlave(dut.o, BEAT, latency=rng.choice([0, 10, 80]), stall=rng.choice([0.0, 0.3]), seed=seed,
                      shy=seed % 3 == 0)
    reset = Reset(dut, old, rng.randrange(1, 300), hung, rng)
    before = {}

    def late(process):
        async def start(ctx):
            while reset.busy_at_end is None or ctx.get(dut.closed):
                await ctx.tick()
            if not before:
                before.update(memory.memory)
                assert memory.idle
                memory.memory.clear()
            await process(ctx)
        return start

    simulate(dut, [old, memory, reset, *map(late, new.processes)], until=lambda: new.done and memory.idle,
             max_cycles=12_000)
    assert reset.busy_at_end == 0
    assert old.left  # else the reset came too late to show anything
    sent = {}  # every byte that the device may have written, with all its values in turn
    for b in first.writes:
        for k, (data, strb) in enumerate(b.words):
            for j in range(BEAT):
                if strb >> j & 1:
                    sent.setdefault(b.addr + BEAT * k + j, set()).add(data >> 8 * j & 0xFF)
    for addr, word in before.items():
        for j in range(BEAT):
            value, was = word >> 8 * j & 0xFF, pattern(addr, BEAT) >> 8 * j & 0xFF
            assert value == was or value in sent.get(addr + j, ()), hex(addr + j)
    check(second, new, memory, BEAT)


def test_answers_that_come_after_a_forced_reset_reach_nobody():
    """The memory stops; the device is reset all the same, and begins anew before the memory goes on."""
    dut = guard()
    old = AxiMaster(dut.i, [Burst(3, 64 * k, 8, 3) for k in range(4)],
                    [Burst(3, 4096 + 64 * k, 8, 3, words=[(7, 0xFF)] * 8) for k in range(3)])
    new = AxiMaster(dut.i, [Burst(3, 8192, 4, 3)], [Burst(3, 12288, 4, 3, words=[(9, 0xFF)] * 4)])
    memory = AxiSlave(dut.o, BEAT, latency=100)
    seen = {}

    async def bench(ctx):
        await ctx.tick().repeat(30)  # addresses are taken, and no answer is due yet
        memory.dead = old.parted = True
        ctx.set(dut.closed, 1)
        await ctx.tick().repeat(5)
        old.dead = True
        await ctx.tick().repeat(3)
        ctx.set(dut.closed, 0)
        await ctx.tick().repeat(150)
        seen.update(busy=ctx.get(dut.busy), addresses=(len(memory.reads), len(memory.writes)), left=new.left)
        memory.dead = False

    def late(process):
        async def start(ctx):
            while not old.dead:
                await ctx.tick()
            await ctx.tick().repeat(6)
            await process(ctx)
        return start

    simulate(dut, [old, memory, bench, *map(late, new.processes)], until=lambda: new.done and memory.idle, max_cycles=2000)
    assert seen == {"busy": 1, "addresses": (4, 3), "left": 2}  # the new life's wait
    assert (len(memory.reads), len(memory.writes)) == (5, 4)
    assert memory.memory[12288] == 9


def test_limits_are_named():
    with pytest.raises(ValueError, match="outstanding_data = 0"):
        ResetGuard(32, 64, 5, 1, 0)
