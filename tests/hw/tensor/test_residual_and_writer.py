"""The two ends at a convolution's places in memory: what is read there, and what is written."""

import random

import numpy as np
import pytest
from nearflash.contract.tensor import pixel_bytes
from nearflash.contract.tensor_image import pack_tensor
from nearflash_hw.tensor.residual import ResidualReader
from nearflash_hw.tensor.writer import CodeWriter
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEFORE = 0xA5


def pixels(rng, channels, wide, lanes, beat, count):
    """Tensor of ``count`` pixels scattered over memory: their addresses, codes, and places in the order (lanes, pixel), with
    some that don't exist."""
    size, limit = pixel_bytes(channels, wide, beat), 32767 if wide else 127
    addresses = [0x1000 + k * (size + beat) for k in rng.sample(range(2 * count), count)]
    codes = np.array([[rng.choice([-limit, limit, rng.randint(-limit, limit)]) for _ in range(channels)] for _ in addresses])
    places = []
    for c in range(0, channels + 2 * lanes, lanes):
        n = min(max(channels - c, 0), lanes)
        places += [({"address": a + (c << wide) if n else rng.getrandbits(20), "count": n, "end": 0,
                     "last": int(channels - c <= lanes)}, codes[k, c:c + n].tolist()) for k, a in enumerate(addresses)]
    places[-1][0]["end"] = 1
    return addresses, codes.astype(np.int16 if wide else np.int8), places


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("wide", [0, 1])
@pytest.mark.parametrize(("lanes", "beat", "channels"), [(2, 8, 7), (4, 16, 13), (8, 8, 11), (1, 8, 3)])
def test_residuals_are_what_lies_there(lanes, beat, channels, wide, stall):
    rng = random.Random(lanes + wide)
    dut = reused(ResidualReader, lanes, beat)
    memory = MemoryModel(beat, latency=14, stall=stall, seed=1)
    addresses, codes, places = pixels(rng, channels, wide, lanes, beat, 9)
    for a, row in zip(addresses, codes, strict=True):
        memory.write(a, pack_tensor(row[None, None], beat))
    source, sink, errors = StreamSource(dut.place, [], stall, 2), StreamSink(dut.o, stall, 3), []

    async def plan(ctx):
        ctx.set(dut.wide, wide)
        source.items += [p for p, _ in places]
        async for *_, error in ctx.tick().sample(dut.error):
            errors.append(error)

    simulate(dut, [plan, source, sink, memory.read_port(dut.mem_read)], until=lambda: len(sink.items) >= len(places),
             max_cycles=4000)
    assert [got[:len(want)] for got, (_, want) in zip(sink.items, places, strict=True)] == [want for _, want in places]
    assert not any(errors)
    assert source.drained
    assert memory.pending == 0


def test_a_failed_residual_is_said():
    dut, errors = reused(ResidualReader, 2, 8), []
    memory = MemoryModel(8, fail=lambda addr: addr == 0x108)
    places = [{"address": a, "count": 2, "last": 1, "end": 0} for a in (0x100, 0x108, 0x110)]
    sink = StreamSink(dut.o)

    async def watch(ctx):
        async for *_, error in ctx.tick().sample(dut.error):
            errors.append(error)

    simulate(dut, [watch, StreamSource(dut.place, places), sink, memory.read_port(dut.mem_read)],
             until=lambda: len(sink.items) == 3, max_cycles=200)
    assert sum(errors) == 1


def write(lanes, beat, tensors, wide, stall=0.0, fail=lambda addr: False):
    """Tensors of :func:`pixels` one after the other; what ``done`` said of each, and memory, which held BEFORE."""
    dut = reused(CodeWriter, lanes, beat)
    memory = MemoryModel(beat, latency=9, stall=stall, seed=4, fail=fail)
    memory.write(0, bytes([BEFORE]) * 0x2000)
    source, codes = StreamSource(dut.place, [], stall, 2), StreamSource(dut.codes, [], stall / 2, 3)
    done, lengths, beats = StreamSink(dut.done, stall, 5), [], []

    async def plan(ctx):
        ctx.set(dut.wide, wide)
        for n, (_, _, places) in enumerate(tensors):
            source.items += [p for p, _ in places]
            codes.items += [c + [77] * (lanes - len(c)) for _, c in places]  # what doesn't exist is anything
            while len(done.items) <= n:
                await ctx.tick()
            lengths.append(memory.pending)

    async def watch(ctx):
        async for *_, valid, ready in ctx.tick().sample(dut.mem_write.data.valid, dut.mem_write.data.ready):
            beats.append(valid and ready)

    simulate(dut, [plan, watch, source, codes, done, memory.write_port(dut.mem_write)],
             until=lambda: len(lengths) == len(tensors), max_cycles=6000)
    assert lengths == [0] * len(tensors), "done before memory has everything"
    assert source.drained
    assert codes.drained
    return done.items, memory, sum(beats)


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("wide", [0, 1])
@pytest.mark.parametrize(("lanes", "beat", "channels"), [(2, 8, 7), (4, 16, 13), (8, 8, 11), (1, 8, 3), (4, 8, 8)])
def test_pixels_end_in_zeros_and_nothing_else_is_touched(lanes, beat, channels, wide, stall):
    rng = random.Random(channels + wide)
    tensors = [pixels(rng, channels, wide, lanes, beat, 6)]
    done, memory, beats = write(lanes, beat, tensors, wide, stall)
    addresses, codes, places = tensors[0]
    expected = bytearray([BEFORE]) * 0x2000
    for a, row in zip(addresses, codes, strict=True):
        raw = pack_tensor(row[None, None], beat)
        expected[a:a + len(raw)] = raw
    assert memory.read(0, 0x2000) == expected
    assert done == [{"error": 0}]
    assert beats == sum(-(-(p["count"] << wide) // beat) for p, _ in places)


def test_a_failed_write_is_said_of_its_tensor_alone():
    rng = random.Random(1)
    tensors = [pixels(rng, 5, 0, 2, 8, 4) for _ in range(3)]
    failing = [tensors[0][0][2]]
    done, *_ = write(2, 8, tensors, 0, fail=lambda addr: addr in failing and bool(failing.pop()))
    assert done == [{"error": 1}, {"error": 0}, {"error": 0}]
