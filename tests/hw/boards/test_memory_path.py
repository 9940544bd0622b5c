"""The way to a memory port: bursts as the port takes them, none that begins while it's closed; a device's DMA keeps the port
busy, and all of the shell between them loses nothing."""

from dataclasses import replace

import pytest
from axi_traffic import check, traffic
from nearflash.contract import DeviceConfig
from nearflash.contract.processing import PS7, PS8
from nearflash_hw.boards.memory_path import MemoryPath
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiMaster, AxiSlave
from nearflash_sim.models.axi_slave import PAGE, pattern

from bench.port import BYTES, busy_share, stream

TINY = DeviceConfig.preset("tiny")
PATHS = [(PS7, 8), (PS7, 32), (PS8, 8), (PS8, 32)]


def path(ps, beat_bytes):
    """With the longest burst that a device of ``beat_bytes`` may send, and the bytes of the port's beats."""
    config = replace(TINY, beat_bytes=beat_bytes, lookup=replace(TINY.lookup, lanes=max(2, beat_bytes // 4)),
                     bus=replace(TINY.bus, address_bits=32))
    own = ps.slave_bits(beat_bytes) // 8
    return reused(MemoryPath, config, ps), min(ps.max_burst * own, PAGE) // beat_bytes, own


@pytest.mark.parametrize(("ps", "beat_bytes"), PATHS, ids=lambda v: getattr(v, "kind", v))
@pytest.mark.parametrize(("stall", "latency", "shy"), [(0.0, 0, False), (0.3, 20, True)])
def test_any_bursts(ps, beat_bytes, stall, latency, shy):
    """Their IDs, addresses, strobes and errors, in the port's width and version of AXI."""
    dut, longest, own = path(ps, beat_bytes)
    plan = traffic((ps.kind, stall), beat_bytes, min(longest, 16), count=10, ids=1 << TINY.bus.id_bits)
    master = AxiMaster(dut.i, plan.reads, plan.writes, stall, seed=1)
    memory = AxiSlave(dut.o, own, latency=latency, stall=stall, seed=2, shy=shy, fail=lambda a: a // own % 61 == 7)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=8000)
    check(plan, master, memory, beat_bytes)


@pytest.mark.parametrize(("ps", "beat_bytes"), [(PS7, 32), (PS8, 8)], ids=lambda v: getattr(v, "kind", v))
@pytest.mark.parametrize("at", [1, 40])
def test_what_is_closed_ends_its_bursts_and_begins_none(ps, beat_bytes, at):
    """Busy until the memory owes nothing; closed from the start, it never is."""
    dut, longest, own = path(ps, beat_bytes)
    plan = traffic((ps.kind, at), beat_bytes, min(longest, 16), count=30, ids=1 << TINY.bus.id_bits)
    master = AxiMaster(dut.i, plan.reads, plan.writes, 0.1, seed=3)
    memory = AxiSlave(dut.o, own, latency=30, stall=0.1, seed=4)
    begun, done = [], []

    async def close(ctx):
        for _ in range(at - 1):
            await ctx.tick()
        assert ctx.get(dut.busy) == (at > 1)
        master.parted = True
        ctx.set(dut.closed, 1)
        await ctx.tick()
        while ctx.get(dut.busy):
            await ctx.tick()
        await ctx.tick()  # in which the memory sees that its last answer was taken
        assert memory.idle
        begun.append(len(memory.reads) + len(memory.writes))
        await ctx.tick().repeat(50)
        done.append(True)

    simulate(dut, [close, master, memory], until=lambda: bool(done), max_cycles=3000)
    assert memory.idle
    assert begun == [len(memory.reads) + len(memory.writes)]
    assert begun[0] < 60
    assert bool(begun[0]) == (at > 1)


@pytest.mark.parametrize(("board", "beat_bytes", "longest"), [
    ("pynq-z2", 8, 16), ("pynq-z2", 16, 16), ("pynq-z2", 32, 16), ("zcu104", 32, 256)])
def test_a_stream_keeps_the_port_busy(board, beat_bytes, longest):
    """In at least nine of ten cycles, both ways at once, behind a memory that takes its time."""
    run = stream(board, beat_bytes)
    memory, own = run.memory, run.own
    total = 2 * BYTES // own
    for busy in (memory.r_busy, memory.w_busy):
        assert len(busy) == total
        assert busy_share(busy) >= 0.9
    assert max(n for _, _, n in memory.reads + memory.writes) == min(longest, BYTES // own)
    for k, words in enumerate(run.words):
        assert words == [sum(pattern(a + j, own) << 8 * j for j in range(0, beat_bytes, own))
                         for a in range(k << 20, (k << 20) + BYTES, beat_bytes)]
    assert len(memory.memory) == total
