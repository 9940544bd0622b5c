"""A pool against a set of numbers."""

import random

import pytest
from nearflash_hw.primitives.pool import Pool
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate


@pytest.mark.parametrize("n", [1, 3, 8, 64])
def test_a_number_is_never_out_twice(n):
    dut = reused(Pool, n)
    rng = random.Random(n)
    out: set[int] = set()

    def take(number):
        assert number not in out
        assert number < n
        out.add(number)
        most.append(len(out))

    most: list[int] = []
    source, sink = StreamSource(dut.i, [], 0.3, 1), StreamSink(dut.o, 0.3, 2, take)

    async def back(ctx):
        while True:
            await ctx.tick()
            returning = set(source.items[source.sent :])
            assert ctx.get(dut.level) <= n - len(out) + len(returning) + 1
            if out and rng.random() < (0.05 if len(most) < 3 * n else 0.5):
                number = rng.choice(sorted(out))
                out.remove(number)
                source.items.append(number)

    simulate(dut, [source, sink, back], until=lambda: len(most) > 6 * n, max_cycles=20_000)
    assert max(most) == n, "some numbers were never given"


def test_a_pool_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n = 0: must be at least 1"):
        Pool(0)
