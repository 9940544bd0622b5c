# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.lookup.beat_writer import CHUNK, BeatWriter
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize(("beat", "stall"), [(8, 0.0), (8, 0.4), (16, 0.3), (32, 0.1)])
def test_words_lie_where_they_belong_and_nothing_beside(beat, stall):
    rng = random.Random(beat)
    dut = BeatWriter(replace(TINY, beat_bytes=beat, lookup=replace(TINY.lookup, lanes=beat // 4)))
    memory = MemoryModel(beat, latency=9, stall=stall, seed=1, fail=lambda addr: addr // beat == 0x8000 // beat + 2)
    lengths = [1, beat // 4, beat // 4 + 1, CHUNK * beat // 4, CHUNK * beat // 4 + 1, 3 * CHUNK * beat // 4 - 1, 5]
    runs = [(0x1000 * (1 + k) + beat * rng.randrange(8), [rng.getrandbits(32) for _ in range(n)])
            for k, n in enumerate(lengths)]
    runs.append((0x8000, [7] * (3 * beat // 4)))  # its last beat fails
    runs.append((0x9000, [8]))
    words = [{"value": w, "last": k == len(run) - 1} for _, run in runs for k, w in enumerate(run)]
    done = StreamSink(dut.done, stall, seed=2)
    asked = []
    port = memory.write_port(dut.host_write)

    async def watch(ctx):
        async for _, _, valid, ready, beats in ctx.tick().sample(
                dut.host_write.req.valid, dut.host_write.req.ready, dut.host_write.req.payload.beats):
            if valid and ready:
                asked.append(beats)

    simulate(dut, [port, watch, done, StreamSource(dut.start, [a for a, _ in runs], stall, seed=3),
                   StreamSource(dut.word, words, stall, seed=4)], max_cycles=20_000,
             until=lambda: len(done.items) == len(runs))
    assert [d["error"] for d in done.items] == [0] * len(lengths) + [1, 0]
    expected = {a + 4 * k + b: w >> 8 * b & 0xFF for a, run in runs for k, w in enumerate(run) for b in range(4)}
    assert memory.bytes == expected
    assert max(asked) == CHUNK
    assert memory.pending == 0


def test_a_run_is_asked_for_only_when_its_words_are_there():
    """Words come at the pace of the flash: a request that waited for them would hold up everyone else."""
    dut = BeatWriter(TINY)
    memory = MemoryModel(TINY.beat_bytes)
    words, done = StreamSource(dut.word), StreamSink(dut.done)
    asked, cycle = [], []

    async def slow(ctx):
        for k in range(4):
            await ctx.tick().repeat(50)
            assert not asked
            words.items.append({"value": k, "last": k == 3})

    async def watch(ctx):
        async for _, _, valid in ctx.tick().sample(dut.host_write.req.valid):
            cycle.append(valid)
            if valid:
                asked.append(len(cycle))

    simulate(dut, [memory.write_port(dut.host_write), words, done, slow, watch, StreamSource(dut.start, [0x1000])],
             until=lambda: bool(done.items), max_cycles=400)
    assert asked
