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
MAP, BEAT = TINY.layout.map, TINY.beat_bytes


def entry(memory, lpn):
    return int.from_bytes(memory.read(MAP + 4 * lpn, 4), "little")


@pytest.mark.parametrize("config", [TINY, ALONE], ids=["two", "one"])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_translations_and_updates_against_a_dictionary(config, stall):
    """All clients translate while pages are mapped and unmapped; an update that was answered is seen by all that ask
    later."""
    rng, dut, n = random.Random(stall), reused(MapCache, config), clients(config)
    assert n == len(dut.req) == (2 if config is TINY else 1)
    memory = MemoryModel(BEAT, latency=7, stall=stall, seed=1)
    mapping = {lpn: rng.randrange(TINY.flash.total_pages) for lpn in rng.sample(range(TINY.lbas), TINY.lbas // 2)}
    for lpn, ppn in mapping.items():
        memory.write(MAP + 4 * lpn, (ppn + 1).to_bytes(4, "little"))
    hot = rng.sample(range(TINY.lbas), 12)
    allowed = [[] for _ in range(n)]  # per client, in order: (lpn, every answer that may come)
    updates, pending = [], {}
    requests = [StreamSource(dut.req[k], stall=stall, seed=2 + k) for k in range(n)]
    answers = [StreamSink(dut.rsp[k], stall, seed=4 + k) for k in range(n)]
    update, updated = StreamSource(dut.update, stall=stall, seed=6), StreamSink(dut.update_done, stall, seed=7)
    number = 150

    def seen(lpn):
        return (mapping[lpn], 1) if lpn in mapping else (None, 0)

    async def script(ctx):
        ctx.set(dut.serve, 1)
        while sum(map(len, allowed)) < number or len(updates) > len(updated.items):
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

    simulate(dut, [script, memory.read_port(dut.mem_read), *requests, *answers, update, updated, _writer(dut, memory)],
             max_cycles=40_000, until=lambda: sum(len(a.items) for a in answers) == number // n * n
             and len(updates) == len(updated.items))
    for k in range(n):
        for (lpn, options), got in zip(allowed[k], answers[k].items, strict=True):
            assert not got["error"]
            assert (got["ppn"] if got["mapped"] else None, got["mapped"]) in options, lpn
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


def test_errors_reach_their_request_and_leave_nothing_behind():
    dut = reused(MapCache, TINY)
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
