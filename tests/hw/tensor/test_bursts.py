"""Rows of tensors as runs of beats, and these from memory and to it: each beat once and in order, requests of at most 16."""

import random

import pytest
from nearflash_hw.tensor.bursts import BurstReader, BurstWriter, TensorRows
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BURST, DEPTH = 16, 64  # beats of a request, and asked for ahead, at most
LENGTHS = (1, 2, BURST - 1, BURST, BURST + 1, 2 * BURST, DEPTH + 1, 5)


def lay_out(rng, beat_bytes, lengths):
    """A memory of random bytes and runs in it, apart from each other and in any order."""
    places = rng.sample(range(len(lengths)), len(lengths))
    return [(0x1000 + 2 * DEPTH * beat_bytes * place, n) for place, n in zip(places, lengths, strict=True)]


def beats_at(memory, beat_bytes, address, n):
    raw = memory.read(address, n * beat_bytes)
    return [int.from_bytes(raw[k:k + beat_bytes], "little") for k in range(0, len(raw), beat_bytes)]


def filled(rng, beat_bytes, runs, **options):
    memory = MemoryModel(beat_bytes, **options)
    for address, n in runs:
        memory.write(address, rng.randbytes(n * beat_bytes))
    return memory


@pytest.mark.parametrize(("beat_bytes", "stall"), [(8, 0.0), (16, 0.4)])
def test_a_run_for_every_row_of_a_tensor(beat_bytes, stall):
    """One after the other without a gap, from a pixel of a beat to the widest row that a run can have."""
    dut, done = reused(TensorRows, beat_bytes), []
    sink = StreamSink(dut.o, stall, 1)

    async def tensors(ctx):
        for at, height, width, pixel in ((0x40, 1, 1, 1), (0x1234_5680, 5, 3, 7), (0, 2, 65535, 256), (64, 9, 4, 1)):
            for port, value in ((dut.at, at), (dut.height, height), (dut.width, width), (dut.pixel, pixel)):
                ctx.set(port, value)
            await ctx.tick().repeat(2)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            while len(sink.items) < height:
                await ctx.tick()
            await ctx.tick().repeat(4)
            beats = width * pixel
            assert sink.items == [{"address": at + row * beats * beat_bytes, "beats": beats} for row in range(height)]
            sink.items.clear()
            done.append(height)

    simulate(dut, [tensors, sink], until=lambda: len(done) == 4, max_cycles=500)
    assert not sink.items


@pytest.mark.parametrize(("beat_bytes", "stall"), [(8, 0.0), (8, 0.4), (16, 0.2)])
def test_runs_one_after_the_other(beat_bytes, stall):
    """And every read that failed is said once."""
    rng, dut = random.Random(stall), reused(BurstReader, beat_bytes)
    runs = lay_out(rng, beat_bytes, LENGTHS)
    bad = {address + rng.randrange(n) * beat_bytes for address, n in runs[::3]}
    memory = filled(rng, beat_bytes, runs, latency=12, stall=stall, seed=1, fail=lambda a: a in bad)
    expected = [b for address, n in runs for b in beats_at(memory, beat_bytes, address, n)]
    source = StreamSource(dut.run, [{"address": a, "beats": n} for a, n in runs], stall, 2)
    sink, errors = StreamSink(dut.o, stall, 3), []

    async def failures(ctx):
        async for *_, error in ctx.tick().sample(dut.error):
            errors.append(error)

    simulate(dut, [source, sink, memory.read_port(dut.mem_read), failures],
             until=lambda: len(sink.items) >= len(expected), max_cycles=4000)
    assert sink.items == expected
    assert sum(memory.asked) == len(expected)
    assert max(memory.asked) == BURST
    assert sum(errors) == len(bad)
    assert memory.pending == 0


def test_a_beat_a_cycle_and_no_more_than_there_is_room_for():
    """A sink that takes nothing at first, then some: what was asked for is taken from memory all the same."""
    dut, rng, resumed = reused(BurstReader, 8), random.Random(1), []
    runs = lay_out(rng, 8, [4 * BURST] * 4)
    memory = filled(rng, 8, runs, latency=12)
    sink = StreamSink(dut.o, stall=1.0)

    async def later(ctx):
        await ctx.tick().repeat(200)
        assert sum(memory.asked) == DEPTH
        assert memory.pending == 0
        sink.stall = 0.0
        while len(sink.items) < BURST // 2:
            await ctx.tick()
        sink.stall = 1.0
        await ctx.tick().repeat(50)
        assert BURST // 2 <= len(sink.items) < BURST
        assert sum(memory.asked) == DEPTH, "more than there is room for"
        resumed.append(len(sink.items))
        sink.stall = 0.0

    simulate(dut, [StreamSource(dut.run, [{"address": a, "beats": n} for a, n in runs]), sink, later,
                   memory.read_port(dut.mem_read)],
             until=lambda: len(sink.items) == 16 * BURST, max_cycles=600)
    assert sink.items == [b for address, n in runs for b in beats_at(memory, 8, address, n)]
    cycles = sink.cycles[resumed[0]:]
    assert cycles[-1] - cycles[0] == len(cycles) - 1


@pytest.mark.parametrize(("beat_bytes", "stall"), [(8, 0.0), (8, 0.4), (16, 0.2)])
def test_what_is_written_is_all_there_when_it_is_done(beat_bytes, stall):
    """No request before its beats are here, and no byte beside. A failure is said of its own write alone: one of memory's,
    or one that came from outside."""
    rng, dut = random.Random(stall), reused(BurstWriter, beat_bytes)
    runs, failing = lay_out(rng, beat_bytes, LENGTHS), set()
    memory = MemoryModel(beat_bytes, latency=9, stall=stall, seed=1, fail=lambda a: a in failing)
    source, done = StreamSource(dut.i, [], stall, 2), StreamSink(dut.done, stall, 3)
    expected, verdicts, ahead = {}, [], []

    async def writes(ctx):
        for k, (address, n) in enumerate(runs):
            beats = [rng.getrandbits(8 * beat_bytes) for _ in range(n)]
            for j, b in enumerate(beats):
                expected.update((address + j * beat_bytes + i, b >> 8 * i & 0xFF) for i in range(beat_bytes))
            failing.clear()
            if k % 3 == 1:
                failing.add(address + rng.randrange(n) * beat_bytes)
            verdicts.append({"error": int(k % 3 > 0)})
            ctx.set(dut.address, address)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            source.items += [{"data": b, "last": int(j == n - 1)} for j, b in enumerate(beats)]
            ctx.set(dut.failed, k % 3 == 2)
            await ctx.tick()
            ctx.set(dut.failed, 0)
            while len(done.items) <= k:
                await ctx.tick()
            assert memory.bytes == expected
            assert memory.pending == 0

    async def early(ctx):
        while True:
            *_, valid = await ctx.tick().sample(dut.mem_write.req.valid)
            ahead.append(valid and sum(memory.asked) >= source.sent)

    simulate(dut, [early, writes, source, done, memory.write_port(dut.mem_write)],
             until=lambda: len(done.items) == len(runs), max_cycles=4000)
    assert done.items == verdicts
    assert source.drained
    assert sum(memory.asked) == sum(LENGTHS)
    assert max(memory.asked) == BURST
    assert not any(ahead)


def test_a_slow_source_never_holds_up_the_bus():
    """Requests wait for their beats, whose transfers then follow each other without a gap."""
    dut, moved = reused(BurstWriter, 8), []
    memory = MemoryModel(8, latency=4)
    source = StreamSource(dut.i, [{"data": k, "last": int(k == 99)} for k in range(100)], 0.6, 1)
    done = StreamSink(dut.done)

    async def begin(ctx):
        ctx.set(dut.start, 1)
        ctx.set(dut.address, 0x400)
        await ctx.tick()
        ctx.set(dut.start, 0)

    async def bus(ctx):
        data, left = dut.mem_write.data, 0
        req = dut.mem_write.req
        async for *_, asks, takes, n, valid, ready in ctx.tick().sample(req.valid, req.ready, req.payload.beats, data.valid,
                                                                      data.ready):
            assert valid or not ready or left <= 0, "a beat of a request is late"
            left += n if asks and takes else 0
            left -= valid and ready
            moved.append(valid and ready)

    simulate(dut, [bus, begin, source, done, memory.write_port(dut.mem_write)], until=lambda: bool(done.items),
             max_cycles=1000)
    assert sum(moved) == 100
    assert memory.read(0x400, 800) == b"".join(k.to_bytes(8, "little") for k in range(100))
