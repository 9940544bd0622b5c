import math
import random

import pytest
from nearflash_hw.tensor.root import SPREAD_BITS, ReciprocalRoot, ReciprocalRoots
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate


def definition(v):
    """docs/offload.md, LAYERNORM, in Python's integers."""
    k = 0
    while v >> k >= 1 << 24:
        k += 2
    while (v << -k if k < 0 else v >> k) < 1 << 22:
        k -= 2
    mantissa = v << -k if k < 0 else v >> k
    return {"recip": min((1 << 31) // math.isqrt(mantissa << 8), 65535), "shift": 17 + k // 2}


@pytest.mark.parametrize(("copies", "stall"), [(1, 0.3), (3, 0.0)])
def test_roots_of_all_lengths(copies, stall):
    """Every length in bits: the least, the greatest, beside a mantissa's end, random; squares, where a root turns."""
    rng = random.Random(copies)
    spreads = [v for n in range(0, SPREAD_BITS) for v in ((1 << n), (2 << n) - 1, rng.randrange(1 << n, 2 << n))]
    # of 32 bits, of which the lowest 8 lie below the mantissa: they must not make a root greater
    squares = [rng.randrange(1 << 15, 1 << 16) ** 2 for _ in range(20)]
    spreads += [s + d for s in squares for d in (-1, 0, 1)]
    dut = reused(ReciprocalRoots, copies)
    source, sink = StreamSource(dut.i, spreads, stall, 1), StreamSink(dut.o, stall, 2)
    cycles = simulate(dut, [source, sink], until=lambda: len(sink.items) == len(spreads), max_cycles=20_000)
    assert sink.items == [definition(v) for v in spreads]
    assert source.drained
    if not stall:
        assert cycles <= ReciprocalRoot.CYCLES * (len(spreads) // copies + 2)
