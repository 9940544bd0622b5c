"""A core's weight words, from on-chip memory or DRAM: every word in step order, pass after pass."""

import random

import pytest
from amaranth.hdl import Value
from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats
from nearflash_hw.mlp.weights import DramWeights, OnChipWeights, WeightReadArbiter
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

AT, BURST = 0x3000, 256  # of the image; beats of a request at most


def core(rows, columns, kr, kc, weights):
    return Core(0, "fc", ("x",), rows, columns, kr, kc, "row", weights, 8)


def image(rng, c, beat_bytes):
    """The words, and their beats: a word begins with a beat."""
    words = [rng.getrandbits(8 * c.word_bytes) for _ in range(c.steps)]
    size = weight_word_beats(c, beat_bytes) * beat_bytes
    raw = b"".join(w.to_bytes(size, "little") for w in words)
    return words, [int.from_bytes(raw[k:k + beat_bytes], "little") for k in range(0, len(raw), beat_bytes)]


@pytest.mark.parametrize(("shape", "beat_bytes"), [((6, 8, 2, 4), 8), ((4, 4, 2, 2), 16), ((8, 16, 4, 8), 8),
                                                  ((2, 4, 2, 4), 8)])
def test_on_chip(shape, beat_bytes):
    """A word of a beat, of less, of several, one word alone; a longer record than the words need; records in the middle."""
    c, rng = core(*shape, "onchip"), random.Random(1)
    dut, done = reused(OnChipWeights, c, beat_bytes), []

    async def use(ctx):
        step = 0
        for _ in range(3):
            words, beats = image(rng, c, beat_bytes)
            for k, beat in enumerate([*beats, rng.getrandbits(8 * beat_bytes)]):
                ctx.set(dut.write_valid, 1)
                ctx.set(dut.write_first, k == 0)
                ctx.set(dut.write_data, beat)
                await ctx.tick()
                ctx.set(dut.write_valid, 0)
                for _ in range(rng.randrange(3)):
                    ctx.set(dut.write_data, rng.getrandbits(8 * beat_bytes))
                    await ctx.tick()
            for _ in range(2 * c.steps + 1):
                assert ctx.get(dut.available)
                ctx.set(dut.take, 1)
                await ctx.tick()
                ctx.set(dut.take, 0)
                assert ctx.get(Value.cast(dut.word)) == words[step]
                await ctx.tick().repeat(rng.randint(1, 3))
                assert ctx.get(Value.cast(dut.word)) == words[step], "not held"
                step = (step + 1) % c.steps
        done.append(True)

    simulate(dut, [use], until=lambda: bool(done), max_cycles=1500)


@pytest.mark.parametrize(("shape", "beat_bytes", "stall"), [((6, 8, 2, 4), 8, 0.0), ((40, 64, 2, 4), 8, 0.1),
                                                           ((8, 16, 4, 8), 16, 0.3), ((2, 4, 2, 4), 16, 0.2)])
def test_from_dram(shape, beat_bytes, stall):
    """Passes that wait for each other; each says whether a read of it failed, and no more is asked for than that."""
    c, rng = core(*shape, "dram"), random.Random(2)
    dut = reused(DramWeights, c, beat_bytes, AT)
    words, beats = image(rng, c, beat_bytes)
    passes, reads, taken = [0, 1, 0, 0], [], []  # of each pass: whether a read fails
    bad = AT + rng.randrange(len(beats)) * beat_bytes

    def fail(address):
        reads.append(address)
        return address == bad and passes[reads.count(bad) - 1]

    memory = MemoryModel(beat_bytes, latency=12, stall=stall, seed=1, fail=fail)
    memory.write(AT, b"".join(b.to_bytes(beat_bytes, "little") for b in beats))
    verdicts = StreamSink(dut.failed, stall, 2)

    async def starts(ctx):
        """Two wait at most."""
        for n in range(len(passes)):
            while n - len(memory.asked) // -(-len(beats) // BURST) >= 2:
                await ctx.tick()
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)

    async def take(ctx):
        while True:
            if ctx.get(dut.available) and rng.random() >= stall:
                ctx.set(dut.take, 1)
                await ctx.tick()
                ctx.set(dut.take, 0)
                taken.append(ctx.get(Value.cast(dut.word)))
            else:
                if taken:
                    assert ctx.get(Value.cast(dut.word)) == taken[-1], "not held"
                await ctx.tick()

    simulate(dut, [starts, take, verdicts, memory.read_port(dut.mem_read)],
             until=lambda: len(taken) >= len(passes) * c.steps and len(verdicts.items) == len(passes), max_cycles=8000,
             settle=100)
    assert taken == words * len(passes)
    assert verdicts.items == passes
    assert sum(memory.asked) == len(passes) * len(beats)
    assert max(memory.asked) <= BURST
    assert memory.pending == 0


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_cores_share_a_port(clients, stall):
    """Each gets the answers to its own requests, in their order, errors too; none is left waiting."""
    rng, dut, beat = random.Random(clients), reused(WeightReadArbiter, clients, 8), 8
    bad = {8 * rng.randrange(512) for _ in range(40)}
    memory = MemoryModel(beat, latency=9, stall=stall, seed=1, fail=lambda a: a in bad)
    memory.write(0, rng.randbytes(8192))
    sources, sinks, expected = [], [], []
    for k in range(clients):
        requests = [{"addr": 8 * rng.randrange(512), "beats": rng.randint(1, 6)} for _ in range(25)]
        sources.append(StreamSource(dut.clients[k].req, requests, stall, 10 + k))
        sinks.append(StreamSink(dut.clients[k].rsp, stall, 20 + k))
        expected.append([
            {"data": int.from_bytes(memory.read(a, 8), "little"), "last": int(j == r["beats"] - 1), "error": int(a in bad)}
            for r in requests for j in range(r["beats"]) for a in [r["addr"] + 8 * j]])
    simulate(dut, [*sources, *sinks, memory.read_port(dut.mem_read)],
             until=lambda: all(len(s.items) >= len(e) for s, e in zip(sinks, expected, strict=True)), max_cycles=3000)
    assert [s.items for s in sinks] == expected
    assert memory.pending == 0
    if not stall:
        ends = [s.cycles[-1] for s in sinks]
        assert max(ends) - min(ends) < max(ends) // 2, "they don't take turns"
