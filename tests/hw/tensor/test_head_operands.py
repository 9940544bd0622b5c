"""A head's keys and values: fetched slice by slice, kept by row or by channel, given as the array's weights."""

import random

import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.head_operands import HeadStore, HeadWeights, SliceReader
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEAT = 8
STORE = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, weight_bytes=512)  # a head of 32 beats


def filled(rng, n, **options):
    memory = MemoryModel(BEAT, **options)
    memory.write(0, rng.randbytes(n))
    return memory


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("beats", [1, 3])
def test_slices(beats, stall):
    """Of rows side by side and apart; a job is taken with its last beat, a failed beat said when it comes."""
    rng, dut, pitch = random.Random(beats), reused(SliceReader, BEAT), 5 * BEAT
    jobs = [{"address": BEAT * rng.randrange(100), "rows": rows} for rows in (1, 2, 7, 1, 4)]
    bad = {j["address"] + pitch * (j["rows"] - 1) for j in jobs[:3]}
    memory, got, taken = filled(rng, 4096, latency=7, stall=stall, seed=1, fail=lambda a: a in bad), [], []
    source = StreamSource(dut.job, jobs, stall, 2)
    rows = [j["address"] + pitch * row for j in jobs for row in range(j["rows"])]
    expected = [(int.from_bytes(memory.read(a + BEAT * k, BEAT), "little"), k == beats - 1, a + BEAT * k in bad)
                for a in rows for k in range(beats)]

    async def arrivals(ctx):
        ctx.set(dut.beats, beats)
        ctx.set(dut.pitch, pitch)
        async for *_, here, value, end, error, job in ctx.tick().sample(dut.arrives, dut.data, dut.row_end, dut.error,
                                                                       dut.job.ready):
            assert here or not error
            if here:
                got.append((value, end, error))
            if job:
                taken.append(len(got))

    simulate(dut, [arrivals, source, memory.read_port(dut.mem_read)], until=lambda: source.drained, max_cycles=1000)
    assert got == expected
    assert taken == [beats * sum(j["rows"] for j in jobs[:k + 1]) for k in range(len(jobs))]
    assert memory.pending == 0


@pytest.mark.parametrize(("transposed", "stall"), [(False, 0.4), (True, 0.0), (True, 0.4)])
def test_heads_one_after_the_other(transposed, stall):
    """A store as full as can be, with rows in whole groups and not, and of one row; nothing of the next head while one is
    here."""
    rng, dut = random.Random(stall), reused(lambda t: HeadStore(STORE, BEAT, transposed=t), transposed)
    bad, errors, done = set(), [], []
    memory = filled(rng, 1 << 13, latency=8, stall=stall, seed=1, fail=lambda a: a in bad)
    tensors = [(32, 1, 3), (13, 2, 2), (8, 4, 1), (1, 1, 2), (16, 2, 2)]  # keys, beats of a head, heads

    async def watch(ctx):
        async for *_, error in ctx.tick().sample(dut.error):
            errors.append(error)

    async def read(ctx, address):
        ctx.set(dut.read.address, address)
        ctx.set(dut.read.en, 1)
        await ctx.tick()
        ctx.set(dut.read.en, 0)
        return ctx.get(dut.data)

    async def use(ctx):
        for number, (keys, beats, heads) in enumerate(tensors):
            at, pitch = 64 * rng.randrange(20), BEAT * beats * heads + rng.choice([0, BEAT])
            bad.clear()
            if number == 1:
                bad.add(at + 3 * pitch)
            for port, value in ((dut.keys, keys), (dut.beats, beats), (dut.heads, heads), (dut.pitch, pitch), (dut.at, at)):
                ctx.set(port, value)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for head in range(heads):
                while not ctx.get(dut.full):
                    await ctx.tick()
                await ctx.tick().repeat(rng.randint(1, 30))
                assert memory.pending == 0, "the next head is read over this one"
                rows = [memory.read(at + row * pitch + head * beats * BEAT, beats * BEAT) for row in range(keys)]
                if transposed:
                    channels = beats * BEAT
                    words = {channels * (row // BEAT) + c: bytes(r[c] for r in rows[row:row + BEAT])
                             for row in range(0, keys, BEAT) for c in range(channels)}
                else:
                    words = {beats * row + k: rows[row][k * BEAT:][:BEAT] for row in range(keys) for k in range(beats)}
                for address, word in rng.sample([*words.items()], len(words)):
                    got = (await read(ctx, address)).to_bytes(BEAT, "little")
                    assert got[:len(word)] == word, (number, head, address)
                assert ctx.get(dut.full)
                ctx.set(dut.release, 1)
                await ctx.tick()
                ctx.set(dut.release, 0)
            await ctx.tick().repeat(20)
            assert not ctx.get(dut.full)
            done.append(number)

    simulate(dut, [watch, use, memory.read_port(dut.mem_read)], until=lambda: len(done) == len(tensors), max_cycles=4000)
    assert sum(errors) == 1
    assert memory.pending == 0


CONFIGS = {"narrow": TensorConfig(rows=4, columns=8, pixels=16, lanes=2, weight_bytes=1 << 13),
           "wide": TensorConfig(rows=8, columns=16, pixels=16, lanes=2, weight_bytes=1 << 13)}


def weight_words(values, rows, config):
    """Bytes of the array's words, None where there is nothing: of ``rows`` (keys by channels, or channels by keys), blocks
    of config.rows, in each steps of config.columns. Only a key's channels beyond its last are 0."""
    width, out = len(rows[0]), []
    for block in range(0, len(rows), config.rows):
        for step in range(0, width, config.columns):
            for r in range(block, block + config.rows):
                for k in range(step, step + config.columns):
                    if r >= len(rows):
                        out.append(None if values or k < width else 0)
                    else:
                        out.append(rows[r][k] if k < width else None if values else 0)
    return [out[k:k + BEAT] for k in range(0, len(out), BEAT)]


@pytest.mark.parametrize(("name", "stall"), [("narrow", 0.4), ("wide", 0.0)])
def test_weights(name, stall):
    """Tile after tile of both kinds: nothing of a head before it's full or after its last tile; a beat a cycle."""
    config, rng = CONFIGS[name], random.Random(name)
    dut = reused(HeadWeights, config, BEAT)
    source, sink = StreamSource(dut.job, [], stall, 1), StreamSink(dut.o, stall, 2)
    stores, done, released = [{}, {}], [], [[], []]

    async def store(ctx):
        """Both stores' read ports: data for a cycle, then anything."""
        ports = [p for k in range(2) for p in (dut.read[k].en, dut.read[k].address, dut.release[k])]
        async for *_, full, en0, at0, release0, en1, at1, release1 in ctx.tick().sample(dut.full, *ports):
            for k, (en, at, release) in enumerate(((en0, at0, release0), (en1, at1, release1))):
                assert full >> k & 1 or not (en or release), "read before the head is here"
                word = stores[k].get(at) if en else None
                ctx.set(dut.data[k], rng.getrandbits(8 * BEAT) if word is None else int.from_bytes(word, "little"))
                if release:
                    released[k].append(source.sent)
                    full &= ~(1 << k)
                    ctx.set(dut.full, full)

    async def heads(ctx):
        for keys, channels in ((1, 8), (5, 16), (8, 8), (13, 24), (24, 8)):
            ctx.set(dut.keys, keys)
            ctx.set(dut.channels, channels)
            by_key = [rng.randbytes(channels) for _ in range(keys)]
            by_channel = [bytes(row[c] for row in by_key) for c in range(channels)]
            for s in stores:
                s.clear()
            for r, row in enumerate(by_key):
                stores[0].update((channels // BEAT * r + k, row[BEAT * k:][:BEAT]) for k in range(channels // BEAT))
            for c, column in enumerate(by_channel):
                for k in range(0, keys, BEAT):
                    part = column[k:k + BEAT]
                    stores[1][channels * (k // BEAT) + c] = part + rng.randbytes(BEAT - len(part))
            tiles = [(0, 0), (0, 0), (1, 0), (0, 1), (1, 0), (1, 1)]
            expected = [b for values, _ in tiles for b in weight_words(values, by_channel if values else by_key, config)]
            sent = source.sent
            for r in released:
                r.clear()
            source.items += [{"values": v, "tokens": 1, "head_last": last} for v, last in tiles]
            await ctx.tick().repeat(rng.randint(2, 9))
            assert not sink.items
            ctx.set(dut.full, 0b01)
            while source.sent < sent + 2:
                await ctx.tick()
            await ctx.tick().repeat(9)
            assert source.sent == sent + 2, "values before they are here"
            ctx.set(dut.full, 0b11)
            while len(sink.items) < len(expected):
                await ctx.tick()
            await ctx.tick().repeat(9)
            assert len(sink.items) == len(expected)
            for got, want in zip(sink.items, expected, strict=True):
                raw = got.to_bytes(BEAT, "little")
                assert all(w is None or g == w for g, w in zip(raw, want, strict=True))
            assert [len(r) for r in released] == [1, 1]
            assert [r[0] - sent for r in released] == [3, 5], "not with the head's last tile"
            assert ctx.get(dut.full) == 0
            first = len(weight_words(0, by_key, config))
            if not stall:
                assert sink.cycles[first - 1] - sink.cycles[0] == first - 1
            sink.items.clear()
            sink.cycles.clear()
            done.append(keys)

    simulate(dut, [store, heads, source, sink], until=lambda: len(done) == 5, max_cycles=12_000)
    assert source.drained
    assert not sink.items
