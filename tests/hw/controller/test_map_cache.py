# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.controller.map_cache import MapCache, clients
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
ALONE = replace(TINY, lookup=replace(TINY.lookup, max_tables=0))  # block I/O's
FOUR = replace(TINY, lookup=replace(TINY.lookup, map_misses=4))  # lines at once
MAP, BEAT = TINY.layout.map, TINY.beat_bytes


def entry(memory, lpn):
    return int.from_bytes(memory.read(MAP + 4 * lpn, 4), "little")


@pytest.mark.parametrize("config", [TINY, ALONE, FOUR], ids=["two", "one", "lines at once"])
@pytest.mark.parametrize(("stall", "latency", "failing"), [(0.0, 7, 0), (0.0, 40, 0), (0.4, 7, 0), (0.1, 20, 0.1)])
def test_translations_and_updates_against_a_dictionary(config, stall, latency, failing):
    """All clients translate while pages are mapped and unmapped; an update that was answered is seen by all that ask
    later. Where lines can't be read an answer may be an error, but none is wrong, and none is once all lines can."""
    rng, dut, n = random.Random(stall), reused(MapCache, config), clients(config)
    assert n == len(dut.req) == (1 if config is ALONE else 2)
    memory = MemoryModel(BEAT, latency=latency, stall=stall, seed=1, fail=lambda addr: rng.random() < failing)
    mapping = {lpn: rng.randrange(TINY.flash.total_pages) for lpn in rng.sample(range(TINY.lbas), TINY.lbas // 2)}
    for lpn, ppn in mapping.items():
        memory.write(MAP + 4 * lpn, (ppn + 1).to_bytes(4, "little"))
    hot = rng.sample(range(TINY.lbas), 12)
    allowed = [[] for _ in range(n)]  # per client, in order: (lpn, every answer that may come)
    updates, pending, over = [], {}, [0] * n
    requests = [StreamSource(dut.req[k], stall=stall, seed=2 + k) for k in range(n)]
    answers = [StreamSink(dut.rsp[k], stall, seed=4 + k) for k in range(n)]
    update, updated = StreamSource(dut.update, stall=stall, seed=6), StreamSink(dut.update_done, stall, seed=7)
    number = 150

    def seen(lpn):
        return (mapping[lpn], 1) if lpn in mapping else (None, 0)

    async def script(ctx):
        ctx.set(dut.serve, 1)
        while any(len(a) < number // n or len(given.items) < len(a) for a, given in zip(allowed, answers, strict=True)) \
                or len(updates) > len(updated.items):
            await ctx.tick()
            if len(updates) == len(updated.items) and pending:
                pending.clear()
            if len(updates) < 40 and not pending and rng.random() < 0.1:
                lpn = rng.choice([*hot, rng.randrange(TINY.lbas)])
                before = seen(lpn)
                if rng.random() < 0.3:
                    mapping.pop(lpn, None)
                    job = {"lpn": lpn, "ppn": 0, "mapped": 0}
                else:
                    mapping[lpn] = rng.randrange(TINY.flash.total_pages)
                    job = {"lpn": lpn, "ppn": mapping[lpn], "mapped": 1}
                pending[lpn] = before
                for k in range(n):  # what was asked and is not answered may see either
                    for asked, options in allowed[k][len(answers[k].items):]:
                        if asked == lpn:
                            options.add(seen(lpn))
                updates.append(job)
                update.items.append(job)
            for k in range(n):
                if len(allowed[k]) < number // n and requests[k].drained and rng.random() < 0.5:
                    lpn = rng.choice([*hot, rng.randrange(TINY.lbas + 3), rng.getrandbits(32)])
                    options = {seen(lpn)} | ({pending[lpn]} if lpn in pending else set())
                    allowed[k].append((lpn, options))
                    requests[k].items.append({"lpn": lpn})
        memory.fail = lambda addr: False
        for k in range(n):
            over[k] = len(allowed[k])
            for lpn in range(k, TINY.lbas, n):
                allowed[k].append((lpn, {seen(lpn)}))
                requests[k].items.append({"lpn": lpn})

    simulate(dut, [script, memory.read_port(dut.mem_read), *requests, *answers, update, updated, _writer(dut, memory)],
             max_cycles=40_000, until=lambda: sum(len(a.items) for a in answers) == number // n * n + TINY.lbas)
    assert memory.pending == 0
    for k in range(n):
        for i, ((lpn, options), got) in enumerate(zip(allowed[k], answers[k].items, strict=True)):
            assert not got["error"] or (failing and i < over[k] and not got["mapped"])
            assert got["error"] or (got["ppn"] if got["mapped"] else None, got["mapped"]) in options, lpn
    assert any(a["error"] for given in answers for a in given.items) == (failing > 0)
    for lpn in range(TINY.lbas):
        assert entry(memory, lpn) == (mapping[lpn] + 1 if lpn in mapping else 0)
    assert all(u["error"] == 0 for u in updated.items)
    assert updates


def _writer(dut, memory, fail=lambda addr: False):
    """Serves ``write`` and ``write_done`` after some cycles."""
    async def process(ctx):
        while True:
            ctx.set(dut.write.ready, 1)
            *_, valid, job = await ctx.tick().sample(dut.write.valid, dut.write.payload)
            if not valid:
                continue
            ctx.set(dut.write.ready, 0)
            await ctx.tick().repeat(4)
            bad = fail(job.addr)
            if not bad:
                raw = job.data.to_bytes(max(16, BEAT), "little")
                for b in range(BEAT):
                    if job.strb >> b & 1:
                        memory.bytes[job.addr + b] = raw[b]
            ctx.set(dut.write_done.payload, {"error": int(bad)})
            ctx.set(dut.write_done.valid, 1)
            await ctx.tick().until(dut.write_done.ready)
            ctx.set(dut.write_done.valid, 0)

    return process


@pytest.mark.parametrize("config", [TINY, FOUR], ids=["one line", "lines at once"])
def test_errors_reach_their_request_and_leave_nothing_behind(config):
    dut = reused(MapCache, config)
    bad = {"read": True}
    memory = MemoryModel(BEAT, latency=3, fail=lambda addr: bad["read"])
    memory.write(MAP + 4 * 9, (5).to_bytes(4, "little"))
    request, answers = StreamSource(dut.req[0], [{"lpn": 9}]), StreamSink(dut.rsp[0])
    update, updated = StreamSource(dut.update), StreamSink(dut.update_done)

    async def script(ctx):
        ctx.set(dut.serve, 1)
        while len(answers.items) < 1:
            await ctx.tick()
        bad["read"] = False
        request.items.append({"lpn": 9})  # the line that failed is read again
        while len(answers.items) < 2:
            await ctx.tick()
        update.items.append({"lpn": 9, "ppn": 77, "mapped": 1})  # not written: the cached copy stays as it was
        while not updated.items:
            await ctx.tick()
        request.items.append({"lpn": 9})

    simulate(dut, [script, memory.read_port(dut.mem_read), request, answers, update, updated,
                   _writer(dut, memory, fail=lambda addr: True), StreamSink(dut.rsp[1])],
             until=lambda: len(answers.items) == 3, max_cycles=1000)
    assert [(a["error"], a["mapped"], a["ppn"] if a["mapped"] else None) for a in answers.items] == [
        (1, 0, None), (0, 1, 4), (0, 1, 4)]
    assert [u["error"] for u in updated.items] == [1]


LINE = BEAT  # entries: four beats of u32
FAR = TINY.lookup.map_cache_lines * LINE  # entries of the whole cache: pages so far apart share a place


def served(config, lpns, latency=30, fail=lambda addr: False):
    """The answers to ``lpns``, all asked for by one client as fast as they are taken, their cycles, and the lines read.
    Page p lies in page p + 1 of the flash."""
    dut, misses = reused(MapCache, config), []
    memory = MemoryModel(BEAT, latency=latency, fail=fail)
    for lpn in range(TINY.lbas):
        memory.write(MAP + 4 * lpn, (lpn + 2).to_bytes(4, "little"))
    request, answers = StreamSource(dut.req[0], [{"lpn": lpn} for lpn in lpns]), StreamSink(dut.rsp[0])

    async def script(ctx):
        ctx.set(dut.serve, 1)
        async for _, _, miss in ctx.tick().sample(dut.miss):
            misses.append(miss)

    simulate(dut, [script, memory.read_port(dut.mem_read), request, answers, StreamSink(dut.rsp[1])],
             until=lambda: len(answers.items) == len(lpns), max_cycles=5000)
    assert memory.pending == 0
    assert len(memory.asked) == sum(misses)
    return answers.items, answers.cycles, sum(misses)


def per_answer(cycles):
    return (cycles[-1] - cycles[4]) / (len(cycles) - 5)


@pytest.mark.parametrize("misses", [2, 4, 8])
def test_as_many_lines_are_on_their_way(misses):
    config = replace(TINY, lookup=replace(TINY.lookup, map_misses=misses))
    lpns = [(line * LINE + line) % TINY.lbas for line in range(2 * TINY.lbas // LINE)]  # no line twice but long after
    (alone, one_by_one, _), (answers, cycles, lines) = served(TINY, lpns, 60), served(config, lpns, 60)
    assert [a["ppn"] for a in answers] == [a["ppn"] for a in alone] == [lpn + 1 for lpn in lpns]
    assert lines == len(lpns)
    assert per_answer(one_by_one) / per_answer(cycles) == pytest.approx(misses, rel=0.15)


@pytest.mark.parametrize("config", [TINY, FOUR], ids=["one line", "lines at once"])
def test_hits_every_two_cycles(config):
    answers, cycles, lines = served(config, [3] * 60)
    assert {a["ppn"] for a in answers} == {4}
    assert per_answer(cycles[20:]) == 2
    assert lines == 1


def test_what_comes_behind_a_miss_finds_its_line():
    """Fetched once for several in a row; what was found before another line took its place is read before that."""
    lpns = [5, 6, 5, 5 + FAR, 6 + FAR, 6, 5, 6 + FAR]
    answers, _, lines = served(FOUR, lpns)
    assert [a["ppn"] for a in answers] == [lpn + 1 for lpn in lpns]
    assert lines == 4


@pytest.mark.parametrize("between", [[], [FAR + 3] * 2], ids=["none", "another line in its place"])
def test_a_line_that_cannot_be_read_is_an_error_for_those_behind_it_too(between):
    """Though only one of its beats can't: of those that found its tag meanwhile each. Then it is fetched again."""
    reads = []

    def fail(addr):
        reads.append(addr)
        return addr == MAP + 8 and reads.count(addr) == 1  # entries 2 and 3, the first time

    lpns = [FAR - 1, 0, 3, 1, FAR - 2, *between, *[0] * 40]
    answers, _, lines = served(FOUR, lpns, fail=fail)
    errors = [a["error"] for a in answers]
    assert errors[:5] == [0, 1, 1, 1, 0]
    assert all(a["ppn"] == lpn + 1 and a["mapped"] for a, lpn in zip(answers, lpns, strict=True) if not a["error"])
    assert not any(a["mapped"] for a in answers if a["error"])
    assert errors[5:] == sorted(errors[5:], reverse=True)
    assert 0 < sum(errors[5:]) < 16 if not between else not any(errors[5:])
    assert lines >= 3


@pytest.mark.parametrize("config", [TINY, FOUR], ids=["one line", "lines at once"])
def test_emptied_with_lines_on_their_way(config):
    """Those are answered, nothing is asked of memory when it says that it's empty, and nothing is kept."""
    dut = reused(MapCache, config)
    memory = MemoryModel(BEAT, latency=50)
    memory.write(MAP, bytes([2, 0, 0, 0]) * TINY.lbas)
    lpns = [line * LINE for line in range(4)]
    request, answers = StreamSource(dut.req[0], [{"lpn": lpn} for lpn in lpns]), StreamSink(dut.rsp[0])
    under_way = []

    async def script(ctx):
        ctx.set(dut.serve, 1)
        while not request.drained:
            await ctx.tick()
        ctx.set(dut.serve, 0)
        ctx.set(dut.invalidate, 1)
        invalidated = 0
        while not invalidated:
            *_, invalidated = await ctx.tick().sample(dut.invalidated)
            under_way.append(memory.pending)
        ctx.set(dut.invalidate, 0)
        memory.write(MAP, bytes([3, 0, 0, 0]) * TINY.lbas)
        ctx.set(dut.serve, 1)
        request.items += [{"lpn": lpn} for lpn in lpns]

    simulate(dut, [script, memory.read_port(dut.mem_read), request, answers, StreamSink(dut.rsp[1])],
             until=lambda: len(answers.items) == 8, max_cycles=2000)
    assert max(under_way) > 0
    assert under_way[-1] == 0
    assert [a["ppn"] for a in answers.items] == [1] * 4 + [2] * 4
