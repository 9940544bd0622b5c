"""Commands through validation and execution, against nearflash.reference.query."""

import random

import numpy as np
import pytest
from lookup_models import broadcast, small_config, table_write, two_tables
from nearflash.contract import Status
from nearflash.reference.query import check_query, pack_queries
from nearflash_hw.interfaces import ItemKind
from nearflash_hw.lookup.sequencer import Sequencer
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from query_streams import MAX, TwoPasses, command, expected, malformed, plain, random_query


def run(config, specs, queries, stall=0.0, seed=0, max_cycles=8000, fail=None, swap=None, overrides=None):
    """Returns (pending, executed, dense, items, peak of commands in flight)."""
    dut = reused(Sequencer, config)
    cmds = [command(i, a, w) for i, (a, w) in enumerate(queries)]
    for i, o in (overrides or {}).items():
        cmds[i].update(o)
    buffers = {c["prp1"]: w.astype("<u4").tobytes() for c, (_, w) in zip(cmds, queries, strict=True)}
    reader = TwoPasses(config, dut, buffers, stall, seed + 10, fail, swap)
    src = StreamSource(dut.infer_cmd, stall=stall, seed=seed)
    to_complete = []
    pending = StreamSink(dut.pending, stall, seed + 1,
                         on_item=lambda p: to_complete.append(1) if p["outcome"]["status"] else None)
    executed = StreamSink(dut.executed, stall, seed + 2, on_item=lambda e: to_complete.append(1))
    dense, item = StreamSink(dut.dense, stall, seed + 3), StreamSink(dut.item, stall, seed + 4)
    done = []

    async def start(ctx):
        assert ctx.get(dut.idle)
        await broadcast(dut, [table_write(config, 5, next(iter(specs.values())), is_open=True),
                              *(table_write(config, t, s) for t, s in specs.items()),
                              table_write(config, 5, next(iter(specs.values())), is_open=False)])(ctx)
        await ctx.tick().repeat(2)
        src.items += cmds

    async def complete(ctx):
        while True:
            ctx.set(dut.completed, bool(to_complete))
            if to_complete:
                to_complete.pop()
                done.append(1)
            await ctx.tick()

    idles, peak = [], [0]

    async def watch(ctx):
        while True:
            await ctx.tick()
            idles.append(ctx.get(dut.idle))
            peak[0] = max(peak[0], src.sent - len(done))

    simulate(dut, [start, complete, watch, src, pending, executed, dense, item, *reader.actors],
             until=lambda: len(done) == len(cmds) and bool(idles) and bool(idles[-1]), max_cycles=max_cycles)
    assert idles[-1]
    assert reader.out.drained
    good = sum(p["outcome"]["status"] == 0 for p in pending.items)
    assert len(executed.items) == good
    assert [p["cid"] for p in pending.items] == [c["cid"] for c in cmds]
    assert reader.of_pass[1] == good, "a command that failed must not be executed"
    assert peak[0] <= config.host.infer_depth + 1
    return pending.items, executed.items, dense.items, [plain(i) for i in item.items]


def check(config, specs, queries, **kw):
    pending, executed, dense, items = run(config, specs, queries, **kw)
    want_dense, want_items = [], []
    for p, (args, words) in zip(pending, queries, strict=True):
        want = check_query(words, config, specs, **args)
        got = p["outcome"]
        assert (Status(got["status"]), got["dw0"], got["dw1"]) == tuple(want)
        assert p["batch"] == args["batch"]
        if want.status == Status.SUCCESS:
            assert p["out_addr"] == args["out_addr"]
            d, i = expected(config, args, words)
            want_dense += d
            want_items += i
    assert dense == want_dense
    assert items == want_items
    assert all(e["status"] == 0 for e in executed)
    return pending


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_good_commands_come_out_word_by_word(stall, weighted):
    rng = random.Random(21)
    config, specs = small_config(), two_tables()
    queries = [random_query(rng, config, specs, lookup, weighted) for lookup in (False, True, False, False, True)]
    pending = check(config, specs, queries, stall=stall, seed=5)
    assert not any(p["outcome"]["status"] for p in pending)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_malformed_commands_fail_whole_and_the_next_one_works(stall):
    rng = random.Random(22)
    config, specs = small_config(), two_tables()
    queries = []
    cases = malformed(rng, config, specs)
    for _, args, words in cases:
        queries += [(args, words), random_query(rng, config, specs, rng.random() < 0.5, False, batch=1)]
    pending = check(config, specs, queries, stall=stall, max_cycles=30000)
    for (name, *_), p in zip(cases, pending[::2], strict=True):
        assert p["outcome"]["status"], name
    assert {Status(p["outcome"]["status"]) for p in pending} == {
        Status.SUCCESS, Status.BAD_BATCH, Status.UNKNOWN_TABLE, Status.INDEX_OUT_OF_RANGE, Status.INVALID_PRP_OFFSET,
        Status.DATA_TRANSFER_ERROR}


def test_results_may_end_where_the_bus_does():
    rng = random.Random(28)
    config, specs = small_config(), two_tables()
    args, words = random_query(rng, config, specs, False, False)
    pending = check(config, specs, [({**args, "out_addr": config.results_reach - config.beat_bytes}, words)])
    assert pending[0]["outcome"]["status"] == Status.SUCCESS


def test_random_damage_is_judged_as_the_reference_does():
    rng = random.Random(23)
    config, specs = small_config(), two_tables()
    queries = []
    for _ in range(60):
        args, words = random_query(rng, config, specs, rng.random() < 0.5, rng.random() < 0.5, batch=rng.randint(1, 3))
        words = words.copy()
        for _ in range(rng.randint(1, 2)):
            k = rng.randrange(len(words))
            words[k] = rng.choice([0, 1, 2, 17, 59, 60, 149, 150, MAX, rng.getrandbits(32)])
        if rng.random() < 0.2:
            words = words[: rng.randint(1, len(words))]
        queries.append((args, words))
    check(config, specs, queries, stall=0.1, seed=3, max_cycles=30000)


def test_lookup_only_device_and_models_of_other_widths():
    rng = random.Random(24)
    specs = two_tables()
    lookup_only = small_config(graph=False)
    check(lookup_only, specs, [random_query(rng, lookup_only, specs, lookup, False) for lookup in (False, True)])
    config = small_config()
    swapped = {0: specs[1], 1: specs[1]}  # 16 elements instead of the model's 20
    queries = [random_query(rng, config, swapped, lookup, False, batch=2) for lookup in (False, True)]
    assert check(config, swapped, queries)[0]["outcome"]["status"] == Status.BAD_BATCH
    small = small_config(graph=False, accumulators=16)
    assert check(small, specs, [random_query(rng, small, specs, True, False)])[0]["outcome"]["status"] == Status.BAD_BATCH


def test_a_stream_of_more_than_a_gigaword_is_refused():
    rng = random.Random(25)
    config, specs = small_config(), two_tables()
    queries = [random_query(rng, config, specs, True, False) for _ in range(2)]
    pending, *_ = run(config, specs, queries, overrides={0: {"words": 1 << 30}})
    assert [p["outcome"]["status"] for p in pending] == [Status.BAD_BATCH, 0]


@pytest.mark.parametrize("beats", [0, 1, 4])
@pytest.mark.parametrize("status", [Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR])
def test_transfer_errors_of_pass_1_are_passed_on(beats, status):
    rng = random.Random(26)
    config, specs = small_config(), two_tables()
    queries = [random_query(rng, config, specs, True, False, batch=4) for _ in range(3)]
    queries[0][1][1] = MAX  # a content error must not hide it
    never = lambda prp1, n: None  # noqa: E731
    pending, _, _, items = run(config, specs, queries, fail=[lambda prp1, n: (beats, status) if n < 2 else None, never])
    assert [p["outcome"] for p in pending] == [{"status": status, "dw0": 0, "dw1": 0}] * 2 + [
        {"status": 0, "dw0": 0, "dw1": 0}]
    assert items == expected(config, *queries[2])[1]


@pytest.mark.parametrize("kind", ["bus", "short", "count", "index", "long"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_query_that_changes_between_the_passes_keeps_its_shape(kind, weighted):
    """The host breaks the rules: the command fails, but as many samples, bags and dense features come out as announced."""
    rng = random.Random(27)
    config, specs = small_config(), two_tables()
    queries = [random_query(rng, config, specs, False, weighted, batch=5) for _ in range(2)]
    words = queries[0][1]
    changed = words.copy()
    if kind == "count":
        changed[3] = 17
    elif kind == "index":
        bags = [[np.array([1, MAX, 3])] * 5] * 2
        changed = pack_queries(np.zeros((5, 3), np.float32), bags,
                               [[np.ones(3, np.float32)] * 5] * 2 if weighted else None)[: len(words)]
    elif kind == "short":  # bags grow, so that the stream ends early
        changed[3:] = 16
    elif kind == "long":
        changed[3:] = 0
    none = lambda *a: None  # noqa: E731
    pending, executed, dense, items = run(
        config, specs, queries, stall=0.2,
        fail=[none, (lambda prp1, n: (6, Status.DATA_TRANSFER_ERROR) if n == 0 else None) if kind == "bus" else none],
        swap=[none, lambda prp1: changed.astype("<u4").tobytes() if prp1 == 1 << 16 else None])
    assert [p["outcome"]["status"] for p in pending] == [0, 0]
    assert executed[0]["status"] == {"bus": Status.DATA_TRANSFER_ERROR, "index": Status.INDEX_OUT_OF_RANGE}.get(
        kind, Status.BAD_BATCH)
    assert executed[1]["status"] == 0
    want_dense, want_items = expected(config, *queries[1])
    first = items[: len(items) - len(want_items)]
    assert items[len(first) :] == want_items
    assert dense[15:] == want_dense
    assert [i[0] for i in first if i[0] != ItemKind.LOOKUP] == [ItemKind.BAG, ItemKind.BAG, ItemKind.SAMPLE] * 5
    if kind == "index":
        assert [i[2] for i in first if i[0] == ItemKind.LOOKUP] == [1]  # what stood before the bad one, and nothing after
    # what was sent before the fault is within its table, and every bag's count is what was sent
    n = 0
    for i in first:
        if i[0] == ItemKind.LOOKUP:
            assert i[2] < specs[i[1]].rows
            n += 1
        elif i[0] == ItemKind.BAG:
            assert i[2] == n
            n = 0


def test_a_word_per_cycle_and_pass():
    rng = random.Random(28)
    config, specs = small_config(), two_tables()
    args, _ = random_query(rng, config, specs, True, False, batch=8)
    words = pack_queries(None, [[np.arange(16)] * 8] * 2)
    overhead = 16 * 3 + 8 * 2  # three cycles per bag, two per sample
    *_, items = run(config, specs, [(args, words)], max_cycles=2 * (len(words) + overhead) + 60)
    assert len(items) == 8 * (32 + 2 + 1)


def test_pass_1_waits_for_the_pass_2_before_it():
    rng = random.Random(29)
    config, specs = small_config(), two_tables()
    queries = [random_query(rng, config, specs, True, False, batch=2) for _ in range(2)]
    dut = reused(Sequencer, config)
    cmds = [command(i, a, w) for i, (a, w) in enumerate(queries)]
    reader = TwoPasses(config, dut, {c["prp1"]: w.astype("<u4").tobytes() for c, (_, w) in zip(cmds, queries, strict=True)})
    src = StreamSource(dut.infer_cmd)
    item, executed = StreamSink(dut.item, stall=1.0), StreamSink(dut.executed)
    blocked = []

    async def start(ctx):
        await broadcast(dut, [table_write(config, t, s) for t, s in specs.items()])(ctx)
        await ctx.tick().repeat(2)
        src.items += cmds
        await ctx.tick().repeat(200)
        blocked.append([*reader.of_pass])
        item.stall = 0.0

    simulate(dut, [start, src, StreamSink(dut.pending), executed, StreamSink(dut.dense), item, *reader.actors],
             until=lambda: len(executed.items) == 2, max_cycles=600)
    assert blocked == [[1, 1]]
    assert reader.of_pass == [2, 2]
