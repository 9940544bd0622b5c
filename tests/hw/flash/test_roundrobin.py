# amaranth: UnusedElaboratable=no
import itertools

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash_hw.flash.roundrobin import round_robin
from nearflash_hw.interfaces import index_bits
from nearflash_sim.bench import simulate


class Chooser(wiring.Component):
    def __init__(self, n):
        self.n = n
        super().__init__({"requests": In(n), "last": In(index_bits(n)), "pick": Out(index_bits(n))})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += Signal().eq(1)  # a clock
        m.d.comb += self.pick.eq(round_robin(m, self.requests, self.last, "chosen"))
        return m


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_next_above_the_last_else_the_lowest(n):
    dut, done = Chooser(n), []

    async def process(ctx):
        for requests, last in itertools.product(range(1 << n), range(n)):
            ctx.set(dut.requests, requests)
            ctx.set(dut.last, last)
            waiting = [k for k in range(n) if requests >> k & 1]
            expected = min(waiting, key=lambda k: (k <= last, k), default=0)
            await ctx.tick()
            assert ctx.get(dut.pick) == expected, (requests, last)
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=n * (1 << n) + 10)
