import random

import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.weights import WeightStream
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEAT = 8
CONFIG = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, weight_bytes=512)  # 32 beats a half
AT = 0x400


@pytest.mark.parametrize(("blocks", "block_beats", "group", "tiles"), [
    (3, 9, 0, 2), (5, 20, 0, 3), (2, 32, 0, 1), (1, 1, 0, 3), (5, 9, 3, 2), (4, 32, 1, 3), (4, 8, 4, 1), (3, 1, 1, 5)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_order_and_reads(blocks, block_beats, group, tiles, stall):
    """Streamed (group 0): all blocks for every tile; held: a group's for all tiles, and every beat is read once."""
    rng = random.Random(blocks * block_beats)
    dut = reused(WeightStream, CONFIG, BEAT)
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
    source, sink, asked = StreamSource(dut.tile, [], stall, 1), StreamSink(dut.o, stall, 2), []

    async def plan(ctx):
        ctx.set(dut.plan, {"weights": AT, "block_beats": block_beats, "streamed": int(not group)})
        source.items += items
        req = dut.mem_read.req
        async for _, _, valid, ready, n in ctx.tick().sample(req.valid, req.ready, req.payload.beats):
            if valid and ready:
                asked.append(n)

    simulate(dut, [plan, source, sink, memory.read_port(dut.mem_read)], until=lambda: len(sink.items) >= len(expected),
             max_cycles=8000)
    assert sink.items == expected
    assert sum(asked) == 2 * len(beats) * (1 if group else tiles)
    assert max(asked) <= 32
    assert source.drained
    assert memory.pending == 0
