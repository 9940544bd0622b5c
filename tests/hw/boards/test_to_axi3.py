"""AXI4 to AXI3: the same bursts with the right WID, for any memory that AXI3 allows, at one beat a cycle."""

import pytest
from axi_traffic import check, traffic
from nearflash_hw.boards.to_axi3 import ToAxi3
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiMaster, AxiSlave, Burst

BEAT = 8


def bridge(outstanding=16):
    return reused(ToAxi3, 32, 8 * BEAT, 6, outstanding)


@pytest.mark.parametrize("shy", [False, True])
@pytest.mark.parametrize(("stall", "latency", "outstanding"), [(0.0, 0, 16), (0.4, 20, 16), (0.2, 50, 2), (0.0, 9, 1)])
def test_any_bursts(stall, latency, outstanding, shy):
    dut, plan = bridge(outstanding), traffic((stall, outstanding), BEAT, 16, ids=64)
    master = AxiMaster(dut.i, plan.reads, plan.writes, stall, seed=1)
    memory = AxiSlave(dut.o, BEAT, latency=latency, stall=stall, seed=2, shy=shy, fail=lambda a: a // BEAT % 61 == 7)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=8000)
    check(plan, master, memory, BEAT)


@pytest.mark.parametrize("beats", [1, 3, 16])
def test_one_beat_per_cycle(beats):
    dut, total = bridge(), 480
    reads = [Burst(k % 64, k * 128, beats, 3) for k in range(total // beats)]
    writes = [Burst(k % 64, k * 128, beats, 3, words=[(k, 0xFF)] * beats) for k in range(total // beats)]
    master, memory = AxiMaster(dut.i, reads, writes), AxiSlave(dut.o, BEAT)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=total + 30)
    for busy in master.busy.values():
        assert len(busy) == busy[-1] - busy[0] + 1 == total


def test_data_wait_for_an_address():
    """Without one there is no WID, whatever is offered."""
    dut, seen = bridge(), []

    async def bench(ctx):
        for port, value in ((dut.i.wvalid, 1), (dut.o.wready, 1), (dut.o.awready, 0)):
            ctx.set(port, value)
        for _ in range(5):
            await ctx.tick()
            seen.append((ctx.get(dut.o.wvalid), ctx.get(dut.i.wready)))
        ctx.set(dut.i.awvalid, 1)
        ctx.set(dut.i.awid, 5)
        await ctx.tick()
        seen.append((ctx.get(dut.o.wvalid), ctx.get(dut.o.wid)))  # though the address is not taken

    simulate(dut, [bench], until=lambda: len(seen) == 6, max_cycles=50)
    assert seen == [(0, 0)] * 5 + [(1, 5)]


def test_limits_are_named():
    with pytest.raises(ValueError, match="outstanding = 0"):
        ToAxi3(32, 64, 6, 0)
