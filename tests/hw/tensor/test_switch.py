"""Units that take turns at memory: the one whose turn it is reaches it, the others wait."""

import random

import pytest
from nearflash_hw.tensor.switch import MemSwitch
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

BEAT, BASE = 8, 0x12_3456_7800
UNITS = ((2, 1), (1, 0), (0, 1), (3, 1), (1, 1))  # read and write ports of each
TOP = (1 << 32) - 8 * BEAT  # of the addresses that a unit has


def make():
    return MemSwitch(BEAT, list(UNITS), BASE)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_each_unit_in_its_turn(stall):
    """All offer requests and data from the start and are ready for answers; only what its owner asks for reaches memory, at
    the base."""
    dut, rng = reused(make), random.Random(stall)
    memory = MemoryModel(BEAT, latency=6, stall=stall, seed=1, fail=lambda a: a in bad)
    bad, actors, reads, writes = set(), [], {}, {}
    for port in dut.mem_read:
        actors.append(memory.read_port(port))
    actors.append(memory.write_port(dut.mem_write))
    written = {}
    for u, (ports, writes_too) in enumerate(UNITS):
        for k in range(ports):
            port, wanted, expected = getattr(dut, f"read{u}")[k], [], []
            for n in range(6):
                beats, at = rng.randint(1, 4), rng.choice([0, TOP, 64 * BEAT * rng.randrange(1 << 10)]) + (n << 16)
                at &= (1 << 32) - 1
                wanted.append({"addr": at, "beats": beats})
                for j in range(beats):
                    a, value = BASE + at + j * BEAT, rng.getrandbits(8 * BEAT)
                    if (old := memory.read(a, BEAT)) == bytes(BEAT):
                        memory.write(a, value.to_bytes(BEAT, "little"))
                    else:
                        value = int.from_bytes(old, "little")
                    if rng.random() < 0.1:
                        bad.add(a)
                    expected.append((a, {"data": value, "last": int(j == beats - 1)}))
            source = StreamSource(port.req, wanted, stall, 10 * u + k)
            reads[u, k] = source, StreamSink(port.rsp, stall, 10 * u + k + 5), expected
            actors += reads[u, k][:2]
        if writes_too:
            port, requests, beats, answers = getattr(dut, f"write{u}"), [], [], []
            for n in range(4):
                at, count = (1 << 31) + (u << 20) + (n << 10), rng.randint(1, 4)
                requests.append({"addr": at, "beats": count})
                for j in range(count):
                    beats.append({"data": rng.getrandbits(8 * BEAT), "strb": rng.getrandbits(BEAT)})
                    for i in range(BEAT):
                        if beats[-1]["strb"] >> i & 1:
                            written[BASE + at + j * BEAT + i] = beats[-1]["data"] >> 8 * i & 0xFF
                fails = n == 2
                if fails:
                    bad.add(BASE + at)
                answers.append({"error": int(fails)})
            sources = [StreamSource(port.req, requests, stall, 7), StreamSource(port.data, beats, stall, 8)]
            writes[u] = sources, StreamSink(port.done, stall, 9), answers
            actors += [*sources, writes[u][1]]
    before = set(memory.bytes)

    def moved(u):
        """What of unit ``u`` has moved."""
        mine = [(s.sent, len(sink.items)) for (v, _), (s, sink, _) in reads.items() if v == u]
        return [*mine, *((s.sent, len(writes[u][1].items)) for s in writes[u][0])] if u in writes else mine

    def whole(u):
        """All of it."""
        return (all(len(sink.items) == len(expected) for (v, _), (_, sink, expected) in reads.items() if v == u)
                and (u not in writes or len(writes[u][1].items) == len(writes[u][2])))

    order, turns = rng.sample(range(len(UNITS)), len(UNITS)), []

    async def owners(ctx):
        for u in order:
            ctx.set(dut.owner, u)
            others = [moved(v) for v in range(len(UNITS)) if v != u]
            while not whole(u):
                await ctx.tick()
            await ctx.tick().repeat(3)
            assert [moved(v) for v in range(len(UNITS)) if v != u] == others
            turns.append(u)

    simulate(dut, [owners, *actors], until=lambda: turns == order, max_cycles=3000)
    for source, sink, expected in reads.values():
        assert source.drained
        assert sink.items == [item | {"error": int(a in bad)} for a, item in expected]
    for sources, done, answers in writes.values():
        assert all(s.drained for s in sources)
        assert done.items == answers
    assert {a: b for a, b in memory.bytes.items() if a not in before} == written
    assert memory.pending == 0
