"""A narrower port: every part of every word at its place, errors and IDs kept, all of the port's cycles used."""

import pytest
from axi_traffic import check, traffic
from nearflash_hw.boards.narrower import Narrower
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import AxiMaster, AxiSlave, Burst

NARROW = 8


def narrower(ratio, outstanding=16):
    return reused(Narrower, 32, 8 * NARROW * ratio, 8 * NARROW, 5, outstanding)


@pytest.mark.parametrize(("ratio", "stall", "latency", "outstanding"), [
    (2, 0.0, 0, 16), (2, 0.4, 20, 16), (4, 0.2, 50, 2), (4, 0.0, 9, 1), (4, 0.6, 0, 16)])
def test_any_bursts(ratio, stall, latency, outstanding):
    dut, beat = narrower(ratio, outstanding), NARROW * ratio
    plan = traffic((ratio, stall), beat, 16, ids=32)
    master = AxiMaster(dut.i, plan.reads, plan.writes, stall, seed=1)
    memory = AxiSlave(dut.o, NARROW, latency=latency, stall=stall, seed=2, fail=lambda a: a // NARROW % 61 == 7)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=12_000)
    check(plan, master, memory, beat)
    for narrow, wide in ((memory.reads, plan.reads), (memory.writes, plan.writes)):
        assert [(a, n) for _, a, n in narrow] == [(b.addr, b.beats * ratio) for b in wide]
    assert {i for i, _, _ in memory.reads} == {0}


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("beats", [1, 4])
def test_a_beat_of_the_port_per_cycle(ratio, beats):
    dut, words = narrower(ratio), 240
    size = (NARROW * ratio).bit_length() - 1
    reads = [Burst(k % 32, k * 256, beats, size) for k in range(words // beats)]
    writes = [Burst(k % 32, k * 256, beats, size, words=[(k, 1)] * beats) for k in range(words // beats)]
    master, memory = AxiMaster(dut.i, reads, writes), AxiSlave(dut.o, NARROW)
    simulate(dut, [master, memory], until=lambda: master.done and memory.idle, max_cycles=words * ratio + 40)
    assert memory.w_busy[-1] - memory.w_busy[0] + 1 == len(memory.w_busy) == words * ratio
    got = master.busy["r"]
    assert got[-1] - got[0] == (words - 1) * ratio


@pytest.mark.parametrize("bits", [(64, 64), (512, 64), (64, 128)])
def test_limits_are_named(bits):
    with pytest.raises(ValueError, match="wide_bits"):
        Narrower(32, *bits, 5)
    with pytest.raises(ValueError, match="outstanding = 0"):
        Narrower(32, 128, 64, 5, 0)
