"""Between the beats of pixels, as contract.tensor_image lays them out, and groups of channels."""

import random

import numpy as np
import pytest
from nearflash.contract.tensor_image import pack_tensor
from nearflash_hw.tensor.groups import GroupPacker, GroupSplitter
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

SIZES = [(1, 8), (2, 8), (8, 8), (4, 16), (16, 16)]  # lanes, beat_bytes


def tensors(rng, lanes, beat_bytes):
    """Pixels of (wide, codes [H, W, C]): channels of one lane, of whole groups and beats, one less and one more."""
    for wide in (0, 1):
        limit = 32767 if wide else 127
        around = {1, lanes, beat_bytes, beat_bytes - 1, beat_bytes + 1, 2 * beat_bytes, 2 * beat_bytes + lanes + 1}
        for channels in sorted(around):
            shape = (rng.randint(1, 2), rng.randint(1, 3), channels)
            codes = [rng.choice([-limit, limit, 0, rng.randint(-limit, limit)]) for _ in range(np.prod(shape))]
            yield wide, np.array(codes, np.int16 if wide else np.int8).reshape(shape)


def groups_of(codes, lanes):
    """The channels that each group has, pixel after pixel."""
    c = codes.shape[-1]
    return [pixel[k:k + lanes].tolist() for pixel in codes.reshape(-1, c) for k in range(0, c, lanes)]


def beats_of(codes, beat_bytes):
    raw = pack_tensor(codes, beat_bytes)
    return [int.from_bytes(raw[k:k + beat_bytes], "little") for k in range(0, len(raw), beat_bytes)]


@pytest.mark.parametrize(("lanes", "beat_bytes"), SIZES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_beats_to_groups(lanes, beat_bytes, stall):
    """Tensor after tensor; what a pixel's last group has beyond its channels is anything."""
    rng, dut = random.Random(lanes), reused(GroupSplitter, lanes, beat_bytes)
    source, sink, seen = StreamSource(dut.i, [], stall, 1), StreamSink(dut.o, stall, 2), []
    wanted = list(tensors(rng, lanes, beat_bytes))

    async def feed(ctx):
        for wide, codes in wanted:
            ctx.set(dut.wide, wide)
            ctx.set(dut.channels, codes.shape[-1])
            await ctx.tick().repeat(2)
            expected = groups_of(codes, lanes)
            source.items += beats_of(codes, beat_bytes)
            while len(sink.items) < len(expected):
                await ctx.tick()
            await ctx.tick().repeat(2)
            assert [got[:len(want)] for got, want in zip(sink.items, expected, strict=True)] == expected
            assert source.drained, "a beat of the last pixel was not taken"
            if not stall and len(expected) > 1:
                # A group a cycle; where one is two beats, every other.
                slowest = 2 if wide and lanes == beat_bytes else 1
                assert sink.cycles[-1] - sink.cycles[0] <= slowest * (len(expected) - 1)
            sink.items.clear()
            sink.cycles.clear()
            seen.append(codes)

    simulate(dut, [feed, source, sink], until=lambda: len(seen) == len(wanted), max_cycles=6000)
    assert not sink.items


@pytest.mark.parametrize(("lanes", "beat_bytes"), SIZES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_groups_to_beats(lanes, beat_bytes, stall):
    """Zeros behind a pixel's channels, whatever its last group has there; the tensor's last beat alone says so."""
    rng, dut = random.Random(lanes), reused(GroupPacker, lanes, beat_bytes)
    source, sink, seen = StreamSource(dut.i, [], stall, 1), StreamSink(dut.o, stall, 2), []
    wanted = list(tensors(rng, lanes, beat_bytes))

    async def feed(ctx):
        for wide, codes in wanted:
            height, width, channels = codes.shape
            for port, value in ((dut.wide, wide), (dut.channels, channels), (dut.height, height), (dut.width, width)):
                ctx.set(port, value)
            await ctx.tick().repeat(2)
            limit = 32767 if wide else 127
            groups, expected = groups_of(codes, lanes), beats_of(codes, beat_bytes)
            source.items += [g + [rng.choice([-limit, limit]) for _ in range(lanes - len(g))] for g in groups]
            while len(sink.items) < len(expected):
                await ctx.tick()
            await ctx.tick().repeat(2)
            assert sink.items == [{"data": b, "last": int(k == len(expected) - 1)} for k, b in enumerate(expected)]
            assert source.drained
            if not stall:
                assert sink.cycles[-1] - sink.cycles[0] <= max(len(groups), len(expected)) - 1
            sink.items.clear()
            sink.cycles.clear()
            seen.append(codes)

    simulate(dut, [feed, source, sink], until=lambda: len(seen) == len(wanted), max_cycles=6000)
    assert not sink.items


@pytest.mark.parametrize("component", [GroupSplitter, GroupPacker])
def test_a_group_is_at_most_a_beat(component):
    with pytest.raises(ValueError, match=r"lanes = 16: must be at most beat_bytes \(8\)"):
        component(16, 8)
