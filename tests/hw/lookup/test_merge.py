"""Vectors of several channels through the merge."""

import random

import pytest
from lookup_models import small_config
from nearflash_hw.lookup.merge import Merge
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate


def run(config, vectors, stall, max_cycles):
    """``vectors[channel]``: (tag, entry, [beats], error beats). Returns the beats, the freed tags, the cycles."""
    dut = reused(Merge, config)
    srcs = [StreamSource(dut.flash_data[k], stall=stall, seed=k) for k in range(len(vectors))]
    sink = StreamSink(dut.vector, stall, seed=9)
    freed = []
    total = sum(len(v[2]) for vs in vectors for v in vs)

    async def start(ctx):
        for vs in vectors:
            for tag, entry, *_ in vs:
                ctx.set(dut.tag_write, {"tag": tag, "entry": entry})
                ctx.set(dut.tag_write_valid, 1)
                await ctx.tick()
        ctx.set(dut.tag_write_valid, 0)
        for src, vs in zip(srcs, vectors, strict=True):
            for tag, _, beats, errors in vs:
                src.items += [{"data": d, "tag": tag, "last": int(i == len(beats) - 1), "error": int(i in errors)}
                              for i, d in enumerate(beats)]

    async def watch(ctx):
        ended = 0
        while True:
            _, _, v, tag, out, ready, p = await ctx.tick().sample(
                dut.tag_free.valid, dut.tag_free.payload, dut.vector.valid, dut.vector.ready, dut.vector.payload)
            assert v == ended, "a tag is free in the cycle after its vector's last beat"
            ended = out & ready & p.last
            if v:
                freed.append(tag)

    simulate(dut, [start, watch, *srcs, sink],
             until=lambda: len(sink.items) == total and len(freed) == sum(map(len, vectors)), max_cycles=max_cycles)
    return sink, freed


def make(rng, config, n, size=(1, 9), error=0.0):
    tags = rng.sample(range(config.lookup.tags), n)
    vectors = [[] for _ in range(config.flash.channels)]
    for tag in tags:
        beats = [rng.getrandbits(64) for _ in range(rng.randint(*size))]
        entry = {"slot": rng.randrange(2), "table": rng.randrange(8), "weight": rng.getrandbits(32),
                 "weighted": rng.randint(0, 1)}
        errors = {rng.randrange(len(beats))} if rng.random() < error else set()
        vectors[rng.randrange(config.flash.channels)].append((tag, entry, beats, errors))
    return vectors


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_vectors_stay_whole_and_carry_their_entries(stall):
    rng = random.Random(11)
    config = small_config(graph=False, tags=64)
    vectors = make(rng, config, 40, error=0.3)
    sink, freed = run(config, vectors, stall, 2000)
    by_key = {(*e.values(), b[0]): (tag, e, b, err) for vs in vectors for tag, e, b, err in vs}
    order, cur = [], []
    for v in sink.items:
        assert v["first"] == int(not cur)
        cur.append(v)
        if v["last"]:
            tag, entry, beats, errors = by_key.pop((*(v[k] for k in ("slot", "table", "weight", "weighted")),
                                                    cur[0]["data"]))
            assert [c["data"] for c in cur] == beats
            assert all(c[k] == entry[k] for c in cur for k in entry)
            assert v["error"] == int(bool(errors)), "an error on any beat must show with the last"
            order.append(tag)
            cur = []
    assert not by_key
    assert not cur
    assert freed == order


def test_a_beat_every_cycle():
    config = small_config(graph=False, tags=64)
    sink, _ = run(config, make(random.Random(12), config, 20, size=(8, 12)), 0.0, 600)
    assert sink.cycles[-1] - sink.cycles[0] + 1 == len(sink.items)


def test_a_vector_waits_until_it_is_whole():
    config = small_config(graph=False, tags=64)
    dut = reused(Merge, config)
    srcs = [StreamSource(port, stall=0.7, seed=k) for k, port in enumerate(dut.flash_data)]  # beats come with gaps
    sink = StreamSink(dut.vector, 0.0)
    for k, src in enumerate(srcs):
        for tag in range(8 * k, 8 * k + 8):
            src.items += [{"data": i, "tag": tag, "last": int(i == 7), "error": 0} for i in range(8)]
    total = 64 * len(srcs)
    simulate(dut, [*srcs, sink], until=lambda: len(sink.items) == total, max_cycles=100 * total)
    begins = [c for c, v in zip(sink.cycles, sink.items, strict=True) if v["first"]]
    ends = [c for c, v in zip(sink.cycles, sink.items, strict=True) if v["last"]]
    assert [e - b for b, e in zip(begins, ends, strict=True)] == [7] * len(begins)
