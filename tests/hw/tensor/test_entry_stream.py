import random

import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash.contract.tensor_image import pack_entries
from nearflash_hw.tensor.entries import PIECE, EntryStream
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

ROWS, AT = 4, 0x200
CONFIG = TensorConfig(rows=ROWS, columns=8, pixels=16, lanes=2, max_channels=64)
DESCRIPTORS = [(7, 1, 0, 2), (5, 2, 3, 2), (64, 1, 5, 1), (1, 3, 2, 3), (8, 1, 1, 2)]  # channels, side, group, tiles


@pytest.mark.parametrize("beat", [8, 16])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_entries_of_blocks_one_descriptor_after_another(beat, stall):
    """A tile gets its group's blocks, whose channels begin anew with each place of a shuffle's square; what a block has
    beyond them may be anything."""
    dut, rng = reused(EntryStream, CONFIG, beat), random.Random(beat)
    memory = MemoryModel(beat, latency=13, stall=stall, seed=1)
    source, sink = StreamSource(dut.tile, [], stall, 2), StreamSink(dut.o, stall, 3)
    expected, asked, errors = [], [], []

    async def descriptors(ctx):
        for channels, side, group, tiles in DESCRIPTORS:
            n = channels * side * side
            entries = [{"bias": rng.choice([-1 << 45, (1 << 45) - 1, rng.randint(-9999, 9999)]),
                        "mult": rng.choice([0, 65535, rng.getrandbits(16)]), "shift": rng.choice([0, 62])} for _ in range(n)]
            memory.write(AT, pack_entries(*([e[k] for e in entries] for k in ("bias", "mult", "shift"))))
            each = -(-channels // ROWS)
            blocks = each * side * side
            ctx.set(dut.plan, {"entries": AT, "entry_beats": n * 16 // beat, "channels": channels})
            tiles_here = []
            for begin in range(0, blocks, group or blocks):
                count = min(group or blocks, blocks - begin)
                for t in range(tiles):
                    tiles_here.append({"blocks": count, "first": int(begin == t == 0), "group_end": int(t == tiles - 1)})
                    for b in range(begin, begin + count):
                        inside = [(b % each) * ROWS + r < channels for r in range(ROWS)]
                        expected.extend(entries[b // each * channels + b % each * ROWS + r] if ok else None
                                        for r, ok in enumerate(inside))
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            source.items += tiles_here
            while len(sink.items) < len(expected) or not source.drained:
                await ctx.tick()

    async def watch(ctx):
        req = dut.mem_read.req
        async for *_, valid, ready, beats, error in ctx.tick().sample(req.valid, req.ready, req.payload.beats, dut.error):
            if valid and ready:
                asked.append(beats)
            errors.append(error)

    total = sum(-(-c // ROWS) * s * s * t * ROWS for c, s, _, t in DESCRIPTORS)
    simulate(dut, [descriptors, source, sink, watch, memory.read_port(dut.mem_read)],
             until=lambda: len(sink.items) >= total, max_cycles=6000)
    assert len(sink.items) == len(expected) == total
    pairs = enumerate(zip(sink.items, expected, strict=True))
    assert not [(i, got, want) for i, (got, want) in pairs if want not in (None, got)]
    assert sum(asked) == sum(c * s * s * 16 // beat for c, s, *_ in DESCRIPTORS), "each entry once"
    assert max(asked) <= PIECE
    assert not any(errors)
    assert memory.pending == 0


def test_a_failed_read_is_said():
    dut, errors = reused(EntryStream, CONFIG, 8), []
    memory = MemoryModel(8, latency=5, fail=lambda addr: addr == AT + 8)
    sink = StreamSink(dut.o)

    async def start(ctx):
        ctx.set(dut.plan, {"entries": AT, "entry_beats": 8, "channels": 4})
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        async for *_, error in ctx.tick().sample(dut.error):
            errors.append(error)

    tile = StreamSource(dut.tile, [{"blocks": 1, "first": 1, "group_end": 1}])
    simulate(dut, [start, tile, sink, memory.read_port(dut.mem_read)], until=lambda: len(sink.items) == ROWS, max_cycles=300)
    assert sum(errors) == 1
