"""A component simulated again: from reset, with other actors, compiled once."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash_sim.bench import StreamSink, StreamSource, amaranth, reused, simulate
from nearflash_sim.bench.amaranth import SimulationTimeout


class RunningSum(wiring.Component):
    i: In(stream.Signature(8))
    o: Out(stream.Signature(16))

    def elaborate(self, platform):
        m = Module()
        total = Signal(16)
        m.d.comb += [self.o.payload.eq(total + self.i.payload), self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += total.eq(self.o.payload)
        return m


def sums(dut, items, stall=0.0, more=()):
    sink = StreamSink(dut.o, stall, seed=1)
    cycles = simulate(dut, [StreamSource(dut.i, items, stall, seed=2), sink, *more],
                      until=lambda: len(sink.items) == len(items), max_cycles=200)
    return sink.items, cycles


def test_every_run_begins_at_reset(monkeypatch):
    compiled, simulator, seen = [], amaranth.Simulator, []
    monkeypatch.setattr(amaranth, "Simulator", lambda top, engine: compiled.append(top) or simulator(top, engine=engine))

    async def watch(ctx):
        while True:
            seen.append(ctx.get(dut.o.valid))
            await ctx.tick()

    dut = RunningSum()
    first = sums(dut, [1, 2, 3], 0.3, [watch])
    count = len(seen)
    assert first[0] == [1, 3, 6]
    assert sums(dut, [10, 20])[0] == [10, 30]
    assert len(seen) == count, "an actor of an earlier run is still there"
    assert sums(dut, [1, 2, 3], 0.3, [watch]) == first == sums(RunningSum(), [1, 2, 3], 0.3)
    assert len(seen) == 2 * count
    with pytest.raises(SimulationTimeout):
        simulate(dut, [StreamSource(dut.i, [1])], until=lambda: False, max_cycles=10)
    assert sums(dut, [1, 2, 3], 0.3) == first
    assert len(compiled) == 3  # of two components, and after an error


def test_reused_by_equal_arguments():
    assert reused(RunningSum) is reused(RunningSum)
    assert reused(list, (1, 2)) is not reused(list, (1, 3))
