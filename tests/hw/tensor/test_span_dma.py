"""Spans between memory and streams of beats."""

import random

import pytest
from nearflash_hw.tensor.span_dma import SpanReader, SpanWriter
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

PIECE, ROOM = 16, 64  # beats of a request, and asked for or waiting, at most
LENGTHS = (1, 2, PIECE - 1, PIECE, PIECE + 1, ROOM, ROOM + 1, 3)


def spans(rng, beat_bytes):
    """Apart from each other and in any order, one of them as far up as addresses go."""
    top = (1 << 40) - len(LENGTHS) * 2 * ROOM * beat_bytes
    return [(top + 2 * ROOM * beat_bytes * place, n)
            for place, n in zip(rng.sample(range(len(LENGTHS)), len(LENGTHS)), LENGTHS, strict=True)]


@pytest.mark.parametrize(("beat_bytes", "stall"), [(8, 0.0), (8, 0.4), (32, 0.2)])
def test_every_span_ends_with_last_and_says_which_beats_failed(beat_bytes, stall):
    rng, dut = random.Random(stall), reused(SpanReader, beat_bytes)
    wanted = spans(rng, beat_bytes)
    bad = {address + rng.randrange(n) * beat_bytes for address, n in wanted[::2]}
    memory, expected = MemoryModel(beat_bytes, latency=11, stall=stall, seed=1, fail=lambda a: a in bad), []
    for address, n in wanted:
        for k in range(n):
            at, value = address + k * beat_bytes, rng.getrandbits(8 * beat_bytes)
            memory.write(at, value.to_bytes(beat_bytes, "little"))
            expected.append({"data": value, "last": int(k == n - 1), "error": int(at in bad)})
    source = StreamSource(dut.start, [{"address": a, "beats": n} for a, n in wanted], stall, 2)
    sink = StreamSink(dut.o, stall, 3)
    simulate(dut, [source, sink, memory.read_port(dut.mem_read)],
             until=lambda: len(sink.items) >= len(expected), max_cycles=4000)
    assert sink.items == expected
    assert sum(memory.asked) == len(expected)
    assert max(memory.asked) == PIECE
    assert memory.pending == 0


def test_it_asks_for_what_it_has_room_for():
    """A sink that takes nothing at first, then some: memory is rid of all that was asked for."""
    dut = reused(SpanReader, 8)
    memory, sink = MemoryModel(8, latency=5), StreamSink(dut.o, stall=1.0)
    memory.write(0x100, b"".join(k.to_bytes(8, "little") for k in range(150)))

    async def later(ctx):
        await ctx.tick().repeat(150)
        assert sum(memory.asked) == ROOM
        assert memory.pending == 0
        sink.stall = 0.0
        while len(sink.items) < PIECE // 2:
            await ctx.tick()
        sink.stall = 1.0
        await ctx.tick().repeat(50)
        assert PIECE // 2 <= len(sink.items) < PIECE
        assert sum(memory.asked) == ROOM, "more than there is room for"
        sink.stall = 0.0

    simulate(dut, [StreamSource(dut.start, [{"address": 0x100, "beats": 150}]), sink, later,
                   memory.read_port(dut.mem_read)],
             until=lambda: len(sink.items) == 150, max_cycles=600)
    assert [b["data"] for b in sink.items] == [*range(150)]


@pytest.mark.parametrize(("beat_bytes", "stall"), [(8, 0.0), (8, 0.4), (32, 0.2)])
def test_what_is_kept_lies_side_by_side(beat_bytes, stall):
    """Beats dropped at the beginning, the end, here and there, all of them; a failure is said of its span alone."""
    rng, dut, early = random.Random(stall), reused(SpanWriter, beat_bytes), []
    failing, expected, verdicts, whole = set(), {}, [], []
    memory = MemoryModel(beat_bytes, latency=7, stall=stall, seed=1, fail=lambda a: a in failing)
    starts, done = StreamSource(dut.start, [], stall, 2), StreamSink(dut.done, stall, 3)
    source = StreamSource(dut.i, [], stall / 2, 4)
    drops = {"none": lambda k, n: 0, "all": lambda k, n: 1, "first": lambda k, n: k == 0, "last": lambda k, n: k == n - 1,
             "any": lambda k, n: rng.random() < 0.5}

    async def feed(ctx):
        for number, (address, n) in enumerate(spans(rng, beat_bytes)):
            drop = [*drops.values()][number % len(drops)]
            beats = [{"data": rng.getrandbits(8 * beat_bytes), "last": int(k == n - 1), "drop": int(drop(k, n))}
                     for k in range(n)]
            kept = [b["data"] for b in beats if not b["drop"]]
            for k, value in enumerate(kept):
                raw = value.to_bytes(beat_bytes, "little")
                expected.update((address + k * beat_bytes + j, byte) for j, byte in enumerate(raw))
            failing.clear()
            if number in (2, 5) and kept:
                failing.add(address + rng.randrange(len(kept)) * beat_bytes)
            verdicts.append({"error": int(bool(failing))})
            starts.items.append(address)
            source.items += beats
            while len(done.items) <= number:
                await ctx.tick()
            assert memory.bytes == expected
            assert memory.pending == 0
            whole.append(len(kept))

    async def late(ctx):
        async for *_, valid in ctx.tick().sample(dut.mem_write.req.valid):
            early.append(valid and sum(memory.asked) >= source.sent)

    simulate(dut, [late, feed, starts, source, done, memory.write_port(dut.mem_write)],
             until=lambda: len(whole) == len(LENGTHS), max_cycles=4000)
    assert done.items == verdicts
    assert {"error": 1} in verdicts
    assert source.drained
    assert sum(memory.asked) == sum(whole)
    assert max(memory.asked) == PIECE
    assert not any(early), "a request before its beats are here"
