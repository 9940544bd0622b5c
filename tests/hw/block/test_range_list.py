"""A dataset management command's ranges: taken from beats of every width, checked against the device, walked."""

import random
import struct
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.block.range_list import MAX_RANGES, RangeList
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")
CONFIGS = {n: replace(TINY, beat_bytes=n, lookup=replace(TINY.lookup, lanes=max(2, n // 4))) for n in (8, 16, 32)}
LBAS = TINY.lbas
MOST = (1 << 32) - 1  # blocks of a range


def random_list(rng, count):
    """Ranges that the device has, in all at most as many blocks as it."""
    left, out = LBAS, []
    for _ in range(count):
        n = rng.choice([0, 1, rng.randint(0, min(9, left))]) if left else 0
        left -= n
        out.append((rng.choice([0, LBAS - n, rng.randint(0, LBAS - n)]), n))
    return out


def play(beat_bytes, lists, stall):
    """Each list of (first block, blocks), and surplus after it: ((bad, long), pages walked if it is neither) of each."""
    config = CONFIGS[beat_bytes]
    dut, rng = reused(RangeList, config), random.Random(f"{lists} {stall}")
    beats, pages = StreamSource(dut.beat, [], stall, 1), StreamSink(dut.lpn, stall, 2)
    out = []

    async def until_high(ctx, port):
        while not ctx.get(port):
            await ctx.tick()

    async def bench(ctx):
        for ranges in lists:
            raw = b"".join(struct.pack("<IIQ", rng.getrandbits(32), n, first) for first, n in ranges)
            needed = -(-len(raw) // beat_bytes)
            raw += rng.randbytes((needed + rng.randrange(4)) * beat_bytes - len(raw))
            words = [int.from_bytes(raw[at:at + beat_bytes], "little") for at in range(0, len(raw), beat_bytes)]
            ctx.set(dut.count, len(ranges))
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for part in (words[:needed - 1], words[needed - 1:]):
                await ctx.tick().repeat(3)
                assert not ctx.get(dut.stored), "stored before the last range came"
                beats.items += part
                while not beats.drained:
                    await ctx.tick()
            await until_high(ctx, dut.stored)
            await ctx.tick().repeat(2)
            verdict = ctx.get(dut.bad), ctx.get(dut.long)
            assert not pages.items, "pages before they were wanted"
            if verdict == (0, 0):
                ctx.set(dut.walk, 1)
                await until_high(ctx, dut.walked)
                ctx.set(dut.walk, 0)
            await ctx.tick().repeat(3)
            out.append((verdict, pages.items[:]))
            pages.items.clear()

    simulate(dut, [beats, pages, bench], until=lambda: len(out) == len(lists), max_cycles=40 * sum(
        len(r) + 10 for r in lists) + 8 * LBAS * len(lists))
    assert not pages.items
    return out


def pages_of(ranges):
    return [first + k for first, n in ranges for k in range(n)]


@pytest.mark.parametrize("beat_bytes", CONFIGS)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_page_of_lists_of_any_length(beat_bytes, stall):
    rng = random.Random(beat_bytes)
    lists = [[(0, LBAS)], [(LBAS - 1, 1)], [(LBAS, 0)], [(3, 0), (0, 1), (7, 0)],
             *(random_list(rng, n) for n in (1, 2, 3, 8))]
    assert play(beat_bytes, lists, stall) == [((0, 0), pages_of(ranges)) for ranges in lists]


@pytest.mark.parametrize("beat_bytes", CONFIGS)
def test_the_longest_list(beat_bytes):
    ranges = random_list(random.Random(1), MAX_RANGES)
    assert play(beat_bytes, [ranges, ranges[:1]], 0.0) == [((0, 0), pages_of(r)) for r in (ranges, ranges[:1])]


@pytest.mark.parametrize("beat_bytes", CONFIGS)
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_range_beyond_the_device_and_too_many_blocks_are_said(beat_bytes, stall):
    """Of the first range and of the last, by one block and by the most there can be; and nothing stays for the next."""
    beyond = [(LBAS, 1), (LBAS - 1, 2), (MOST, 1), (1 << 32, 1), (1 << 63, 0), (LBAS + 1, 0)]
    lists = [r for b in beyond for r in ([b], [(0, 2), (5, 1), b], [b, (0, 2), (5, 1)])]
    lists += [[(0, LBAS), (0, 1)], [(0, 1), (1, LBAS - 1), (9, 0), (0, 1)], [(0, MOST)] * 3, [(0, 9), (0, MOST)],
              [(0, LBAS - 1), (0, 1)], [(2, 3)]]
    expected = []
    for ranges in lists:
        verdict = (any(first + n > LBAS for first, n in ranges), sum(n for _, n in ranges) > LBAS)
        expected.append((verdict, [] if any(verdict) else pages_of(ranges)))
    assert play(beat_bytes, lists, stall) == expected
