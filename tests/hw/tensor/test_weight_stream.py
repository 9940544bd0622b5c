import random

import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.weights import PIECE, UNDER_WAY, WeightStream
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEAT = 8
CONFIG = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, weight_bytes=512)  # 32 beats a half, a piece
PIECES = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, weight_bytes=2048)  # of four pieces
AT = 0x400


@pytest.mark.parametrize(("blocks", "block_beats", "group", "tiles"), [
    (3, 9, 0, 2), (5, 20, 0, 3), (2, 32, 0, 1), (1, 1, 0, 3), (5, 9, 3, 2), (4, 32, 1, 3), (4, 8, 4, 1), (3, 1, 1, 5)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_order_and_reads(blocks, block_beats, group, tiles, stall):
    """Streamed (group 0): all blocks for every tile; held: a group's for all tiles, and every beat is read once."""
    follow(CONFIG, blocks, block_beats, group, tiles, stall)


@pytest.mark.parametrize(("blocks", "block_beats", "group", "tiles"), [(6, 45, 0, 2), (5, 60, 2, 2), (1, 128, 1, 2)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_parts_of_several_pieces(blocks, block_beats, group, tiles, stall):
    """At most UNDER_WAY of them, and what has come is given before the part is whole."""
    first, whole = follow(PIECES, blocks, block_beats, group, tiles, stall)
    assert first < whole


def follow(config, blocks, block_beats, group, tiles, stall):
    """Cycles of the first beat given, and of the last one that came of the first part."""
    rng = random.Random(blocks * block_beats)
    dut = reused(WeightStream, config, BEAT)
    memory = MemoryModel(BEAT, latency=15, stall=stall, seed=3)
    beats = [rng.getrandbits(64) for _ in range(blocks * block_beats)]
    memory.write(AT, b"".join(b.to_bytes(BEAT, "little") for b in beats))
    items, expected = [], []
    for _ in range(2):  # a descriptor after another
        for begin in range(0, blocks, group or blocks):
            count = min(group or blocks, blocks - begin)
            for k in range(tiles):
                items.append({"blocks": count, "first": int(begin == k == 0), "group_begin": int(k == 0),
                              "group_end": int(k == tiles - 1)})
                expected += beats[begin * block_beats:(begin + count) * block_beats]
    source, sink, asked, came = StreamSource(dut.tile, [], stall, 1), StreamSink(dut.o, stall, 2), [], []
    given = []

    async def plan(ctx):
        ctx.set(dut.plan, {"weights": AT, "block_beats": block_beats, "streamed": int(not group)})
        source.items += items
        req, rsp, o = dut.mem_read.req, dut.mem_read.rsp, dut.o
        cycle = 0
        signals = (req.valid, req.ready, req.payload.beats, rsp.valid, o.valid & o.ready)
        async for _, _, valid, ready, n, beat, out in ctx.tick().sample(*signals):
            cycle += 1
            if out:
                given.append(cycle)
            if valid and ready:
                asked.append(n)
            if beat:
                came.append(cycle)
            assert sum(asked) - len(came) <= UNDER_WAY * PIECE

    simulate(dut, [plan, source, sink, memory.read_port(dut.mem_read)], until=lambda: len(sink.items) >= len(expected),
             max_cycles=8000)
    assert sink.items == expected
    assert sum(asked) == 2 * len(beats) * (1 if group else tiles)
    assert max(asked) <= PIECE
    assert source.drained
    assert memory.pending == 0
    part = min(config.weight_bytes // 2 // BEAT, (group or blocks) * block_beats)
    return given[0], came[part - 1]
