# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash.contract import BusConfig
from nearflash_hw.primitives.interconnect import BurstSplitter, MemInterconnect
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import AxiSlave
from nearflash_sim.models.axi_slave import PAGE, pattern


def expected_bursts(addr, beats, beat_bytes):
    """Minimal model of the cut rule: at multiples of min(256 beats, 4 KiB)."""
    limit = min(256, PAGE // beat_bytes)
    out = []
    while beats:
        n = min(beats, limit - addr // beat_bytes % limit)
        out.append((addr, n))
        addr, beats = addr + n * beat_bytes, beats - n
    return out


def random_request(rng, beat_bytes, base, span):
    """A request inside [base, base + span), often near a 4 KiB boundary."""
    beats = rng.choice([1, 1, 2, 3, rng.randint(1, 40), rng.randint(1, 300)])
    room = span - beats * beat_bytes
    addr = rng.randrange(0, room, beat_bytes)
    if rng.random() < 0.4:
        addr = min(room, max(0, addr // PAGE * PAGE - rng.randint(0, 3) * beat_bytes))
    return {"addr": base + addr, "beats": beats}


@pytest.mark.parametrize("beat_bytes", [8, 16, 32])
def test_splitter_cuts_at_the_limits(beat_bytes):
    rng = random.Random(beat_bytes)
    requests = [{"addr": 0, "beats": 1}, {"addr": PAGE - beat_bytes, "beats": 2}, {"addr": PAGE, "beats": 256},
                {"addr": 0, "beats": 65535}, {"addr": (1 << 40) - PAGE, "beats": PAGE // beat_bytes}]
    requests += [random_request(rng, beat_bytes, rng.randrange(0, 1 << 38, PAGE), 1 << 14) for _ in range(40)]
    dut = BurstSplitter(beat_bytes, clients=3)
    owned = [{**r, "client": i % 3} for i, r in enumerate(requests)]
    source, sink = StreamSource(dut.i, owned, 0.3, seed=1), StreamSink(dut.o, 0.3, seed=2)
    bursts = [(expected_bursts(r["addr"], r["beats"], beat_bytes)) for r in requests]
    expected = [{"addr": a, "len": n - 1, "final": int(i == len(b) - 1), "client": k % 3}
                for k, b in enumerate(bursts) for i, (a, n) in enumerate(b)]
    simulate(dut, [source, sink], until=lambda: len(sink.items) >= len(expected), max_cycles=5000)
    assert sink.items == expected


@pytest.mark.parametrize(("beat_bytes", "stall", "latency", "outstanding", "address_bits"),
                         [(16, 0.0, 0, 8, 40), (16, 0.4, 30, 8, 24), (8, 0.2, 60, 2, 24), (32, 0.3, 8, 1, 40)])
def test_nothing_lost_under_random_load(beat_bytes, stall, latency, outstanding, address_bits):
    """Three readers and three writers; data, last, errors and the bursts on the bus against a model."""
    rng = random.Random(stall * 10 + beat_bytes)
    n, requests, span = 3, 12, 1 << 14
    dut = MemInterconnect(beat_bytes, n, n, outstanding=outstanding, reach_bits=address_bits, dense_writes=(1, 2))

    def fail(addr):
        return addr // beat_bytes % 61 == 7

    slave = AxiSlave(dut.axi, beat_bytes, latency=latency, stall=stall, seed=3, fail=fail)
    actors, readers, writers = [slave], [], []
    for k in range(n):  # readers read areas that nobody writes; each writer has its own
        reqs = [random_request(rng, beat_bytes, k << 20, span) for _ in range(requests)]
        readers.append((reqs, StreamSink(dut.read[k].rsp, stall, seed=10 + k)))
        actors += [StreamSource(dut.read[k].req, reqs, stall, seed=20 + k), readers[-1][1]]
    model = {}
    for k in range(n):
        reqs = [random_request(rng, beat_bytes, (k + 8) << 20, span) for _ in range(requests)]
        words = []
        for req in reqs:
            for i in range(req["beats"]):
                word = {"data": rng.getrandbits(8 * beat_bytes), "strb": rng.getrandbits(beat_bytes)}
                words.append(word)
                a = req["addr"] + i * beat_bytes
                mask = sum(0xFF << 8 * j for j in range(beat_bytes) if word["strb"] >> j & 1)
                model[a] = model.get(a, pattern(a, beat_bytes)) & ~mask | word["data"] & mask
        writers.append((reqs, StreamSink(dut.write[k].done, stall, seed=30 + k)))
        actors += [StreamSource(dut.write[k].req, reqs, stall, seed=40 + k),
                   StreamSource(dut.write[k].data, words, stall, seed=50 + k), writers[-1][1]]

    beats = [sum(r["beats"] for r in reqs) for reqs, _ in readers]
    simulate(dut, actors, max_cycles=60_000, settle=100, until=lambda: slave.idle
             and all(len(sink.items) >= b for (_, sink), b in zip(readers, beats, strict=True))
             and all(len(sink.items) >= requests for _, sink in writers))

    for k, (reqs, sink) in enumerate(readers):
        words = [(r["addr"] + i * beat_bytes, i == r["beats"] - 1) for r in reqs for i in range(r["beats"])]
        assert sink.items == [{"data": pattern(a, beat_bytes), "last": int(last), "error": int(fail(a))}
                              for a, last in words]
        assert [(a, b) for i, a, b in slave.reads if i == k] == [
            x for r in reqs for x in expected_bursts(r["addr"], r["beats"], beat_bytes)]
    for k, (reqs, sink) in enumerate(writers):
        assert sink.items == [{"error": int(any(fail(r["addr"] + i * beat_bytes) for i in range(r["beats"])))}
                              for r in reqs]
        assert [(a, b) for i, a, b in slave.writes if i == k] == [
            x for r in reqs for x in expected_bursts(r["addr"], r["beats"], beat_bytes)]
    assert slave.memory == model


@pytest.mark.parametrize("beats", [2, 300])
def test_one_beat_per_cycle(beats):
    """Two readers and two writers keep both data channels busy in every cycle once started."""
    total = 600
    dut = MemInterconnect(16, 2, 2)
    slave = AxiSlave(dut.axi, 16)
    actors, reads, dones = [slave], [], []
    for k in range(2):
        reqs = [{"addr": (k << 20) + i * beats * 16, "beats": beats} for i in range(total // beats)]
        reads.append(StreamSink(dut.read[k].rsp))
        dones.append(StreamSink(dut.write[k].done))
        words = [{"data": i, "strb": 0xFFFF} for i in range(total)]
        actors += [StreamSource(dut.read[k].req, reqs), reads[-1], StreamSource(dut.write[k].req, reqs),
                   StreamSource(dut.write[k].data, words), dones[-1]]
    simulate(dut, actors, max_cycles=3000, until=lambda: all(len(d.items) == total // beats for d in dones)
             and all(len(r.items) == total for r in reads))
    cycles = sorted(reads[0].cycles + reads[1].cycles)
    assert cycles[-1] - cycles[0] == 2 * total - 1
    assert slave.w_busy[-1] - slave.w_busy[0] == 2 * total - 1


@pytest.mark.parametrize(("writes", "dense"), [(8, ()), (32, ()), (64, (0,))])
def test_single_beats_under_way(writes, dense):
    """A writer of single beats is granted one every other cycle, or every cycle, if as many as a round trip takes may be
    under way."""
    total, latency = 192, 30
    dut = MemInterconnect(8, 0, 1, outstanding_writes=writes, dense_writes=dense)
    slave, done = AxiSlave(dut.axi, 8, latency=latency), StreamSink(dut.write[0].done)
    cycles = simulate(dut, [slave, done, StreamSource(dut.write[0].req, [{"addr": 8 * k, "beats": 1} for k in range(total)]),
                            StreamSource(dut.write[0].data, [{"data": k, "strb": 0xFF} for k in range(total)])],
                      until=lambda: len(done.items) == total, max_cycles=2000)
    if writes == 8:
        assert cycles >= total // writes * latency
    elif dense:
        assert cycles <= total + latency + 20
    else:
        assert 2 * total <= cycles <= 2 * total + latency + 20
    assert slave.memory == {8 * k: k for k in range(total)}


def test_arbitration_is_fair():
    """A greedy reader with many short requests does not keep another from its turn."""
    dut = MemInterconnect(8, 2, 0)
    slave = AxiSlave(dut.axi, 8)
    sinks = [StreamSink(dut.read[k].rsp) for k in range(2)]
    simulate(dut, [slave, *sinks, *(StreamSource(dut.read[k].req, [{"addr": k << 20, "beats": 1}] * 20)
                                    for k in range(2))],
             until=lambda: all(len(s.items) == 20 for s in sinks), max_cycles=400)
    order = [i for i, _, _ in slave.reads]
    assert all(abs(2 * order[:n].count(0) - n) <= 2 for n in range(1, 40))


def test_a_reader_with_many_bursts_under_way_does_not_block_another():
    class OneFirst(AxiSlave):
        """Answers reader 0 only when reader 1 has everything."""

        def _pick(self, queues):
            return super()._pick({k: q for k, q in queues.items() if k == 1 or len(sinks[1].items) == 6})

    dut = MemInterconnect(8, 2, 0, outstanding=2)
    sinks = [StreamSink(dut.read[k].rsp) for k in range(2)]
    simulate(dut, [OneFirst(dut.axi, 8), *sinks, *(StreamSource(dut.read[k].req, [{"addr": k << 20, "beats": 1}] * 6)
                                                   for k in range(2))],
             until=lambda: all(len(s.items) == 6 for s in sinks), max_cycles=400)
    assert max(sinks[1].cycles) < min(sinks[0].cycles)


def test_every_reader_has_its_own_bursts_under_way():
    """Before anything is answered, two of reader 0 and 2 and five of reader 1 are asked for."""
    class Silent(AxiSlave):
        def _pick(self, queues):
            return None

    dut = MemInterconnect(8, 3, 0, outstanding=2, outstanding_reads={1: 5, 7: 9})
    slave, seen = Silent(dut.axi, 8), []

    async def count(ctx):
        for _ in range(60):
            await ctx.tick()
        seen.extend(i for i, *_ in slave.reads)

    sources = [StreamSource(dut.read[k].req, [{"addr": k << 20, "beats": 1}] * 9) for k in range(3)]
    simulate(dut, [slave, count, *(StreamSink(dut.read[k].rsp) for k in range(3)), *sources], until=lambda: bool(seen),
             max_cycles=100)
    assert [seen.count(k) for k in range(3)] == [2, 5, 2]
    with pytest.raises(ValueError, match="outstanding_reads"):
        MemInterconnect(8, 2, 0, outstanding_reads={0: 0})


def test_a_writer_without_data_does_not_block_another():
    dut = MemInterconnect(8, 0, 2)
    slave = AxiSlave(dut.axi, 8)
    early = StreamSource(dut.write[0].req, [{"addr": 0, "beats": 4}])
    late = StreamSource(dut.write[0].data)
    dones = [StreamSink(dut.write[k].done) for k in range(2)]
    words = [{"data": i, "strb": 0xFF} for i in range(4)]

    async def release(ctx):
        while not dones[1].items:
            await ctx.tick()
        late.items += words

    simulate(dut, [slave, early, late, *dones, release, StreamSource(dut.write[1].req, [{"addr": 64, "beats": 4}]),
                   StreamSource(dut.write[1].data, words)],
             until=lambda: len(dones[0].items) == len(dones[1].items) == 1, max_cycles=300)
    assert slave.memory == {a + 8 * i: i for a in (0, 64) for i in range(4)}


def test_answers_nobody_takes_wait_and_none_is_lost():
    """A client's queue of answers fills up; the rest waits on the B channel until it takes them, each with its own error."""
    dut = MemInterconnect(8, 0, 2)
    slave = AxiSlave(dut.axi, 8, fail=lambda addr: addr in (0, 24, 40))
    requests = [{"addr": 8 * k, "beats": 1} for k in range(7)]
    dones = [StreamSink(dut.write[k].done, stall=1.0 - k) for k in range(2)]

    async def release(ctx):
        for _ in range(200):
            await ctx.tick()
        assert not dones[0].items
        dones[0].stall = 0.0

    simulate(dut, [slave, *dones, release, StreamSource(dut.write[0].req, requests),
                   StreamSource(dut.write[0].data, [{"data": 5, "strb": 0xFF}] * 7)],
             until=lambda: len(dones[0].items) >= 7, max_cycles=600)
    assert dones[0].items == [{"error": int(r["addr"] in (0, 24, 40))} for r in requests]
    assert slave.idle


@pytest.mark.parametrize("kwargs", [{"n_read": 33, "n_write": 1}, {"n_read": 1, "n_write": -1},
                                    {"n_read": 1, "n_write": 1, "outstanding": 0},
                                    {"n_read": 1, "n_write": 1, "reach_bits": 12},
                                    {"n_read": 1, "n_write": 1, "reach_bits": 41}])
def test_limits_are_named(kwargs):
    with pytest.raises(ValueError, match="must"):
        MemInterconnect(16, **kwargs)


@pytest.mark.parametrize("max_burst", [2, 16])
def test_bursts_of_a_narrower_bus_from_a_base(max_burst):
    """As an AXI3 port takes them; every address moves by the base, and stays within 4 KiB and the bus."""
    rng, base = random.Random(max_burst), 0x1234_5000
    dut = MemInterconnect(8, 1, 1, BusConfig(address_bits=32, max_burst=max_burst, cache=0b0010), reach_bits=20, based=True)
    slave = AxiSlave(dut.axi, 8, stall=0.2)
    requests = [random_request(rng, 8, 0, 1 << 12) for _ in range(12)]
    reads, dones, caches = StreamSink(dut.read[0].rsp), StreamSink(dut.write[0].done), set()

    async def place(ctx):
        ctx.set(dut.base, base >> 12)
        async for _, _, ar, cache in ctx.tick().sample(dut.axi.arvalid, dut.axi.arcache):
            if ar:
                caches.add(cache)

    words = [{"data": i, "strb": 0xFF} for i in range(sum(r["beats"] for r in requests))]
    simulate(dut, [place, slave, reads, dones, StreamSource(dut.read[0].req, requests),
                   StreamSource(dut.write[0].req, requests), StreamSource(dut.write[0].data, words)], max_cycles=40_000,
             until=lambda: len(dones.items) == len(requests) and len(reads.items) == len(words))
    for bursts in (slave.reads, slave.writes):
        assert max(n for _, _, n in bursts) == max_burst
        at = 0
        for r in requests:
            left, a = r["beats"], base + r["addr"]
            while left:
                _, addr, n = bursts[at]
                assert addr == a
                assert n <= left
                assert (addr % (8 * max_burst)) + 8 * n <= 8 * max_burst
                a, left, at = a + 8 * n, left - n, at + 1
        assert at == len(bursts)
    assert caches == {0b0010}


@pytest.mark.parametrize("seed", range(6))
def test_a_bus_that_stops_is_noticed(seed):
    """Whatever was under way: the side that owes something is named, once it has owed it for long enough, and for good."""
    rng, silence = random.Random(seed), 200
    dut = MemInterconnect(16, 2, 2, BusConfig(silence_cycles=silence))
    slave = AxiSlave(dut.axi, 16, latency=9, stall=0.2, seed=seed)
    stop = rng.randint(20, 300)
    moved, noticed = [], {}

    async def halt(ctx):
        axi, names = dut.axi, ("ar", "r", "aw", "w", "b")
        ticks = aiter(ctx.tick().sample(dut.silent_reads, dut.silent_writes, *(
            getattr(axi, n + "valid") & getattr(axi, n + "ready") for n in names)))
        cycle = 0
        while True:
            _, _, *silent, ar, r, aw, w, b = await anext(ticks)
            cycle += 1
            moved.append((ar | r, aw | w | b))
            for k in range(2):
                if silent[k]:
                    noticed.setdefault(k, cycle)
                assert silent[k] == (k in noticed)
            if cycle == stop:
                slave.stall = 1.0

    requests = [{"addr": i << 8, "beats": 5} for i in range(200)]
    words = [{"data": i, "strb": 0xFFFF} for i in range(1000)]
    actors = [slave, halt]
    for k in range(2):
        actors += [StreamSource(dut.read[k].req, requests, 0.1, seed=k), StreamSink(dut.read[k].rsp),
                   StreamSource(dut.write[k].req, requests, 0.1, seed=k), StreamSource(dut.write[k].data, words),
                   StreamSink(dut.write[k].done)]
    simulate(dut, actors, until=lambda: len(noticed) == 2, max_cycles=3000)
    for k in range(2):
        last = max(i for i, m in enumerate(moved) if m[k])
        assert last >= stop - 20  # it worked until then
        assert silence <= noticed[k] - last <= silence + 20
