"""Both passes over checked commands: what is announced, read and sent, and in which order."""

import random

import pytest
from lookup_models import broadcast, small_config, table_write, two_tables
from nearflash.contract import Status
from nearflash_hw.lookup.executor import Executor
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from query_streams import MAX, TwoPasses, command, expected, plain, random_query

CONFIG, SPECS = small_config(), two_tables()
GOOD = {"status": 0, "dw0": 0, "dw1": 0}


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_passes(stall):
    """Commands that failed their checks, that fail in pass 1, that change before pass 2, and good ones, in random order."""
    rng = random.Random(11)
    kinds = ["checks", "pass 1", "pass 2", *["good"] * 3] * 3
    rng.shuffle(kinds)
    queries = [random_query(rng, CONFIG, SPECS, rng.random() < 0.5, rng.random() < 0.5, batch=rng.randint(1, 3))
               for _ in kinds]
    inputs, buffers = [], {}
    for i, (kind, (args, words)) in enumerate(zip(kinds, queries, strict=True)):
        c = command(i, args, words)
        failed = {"status": Status.BAD_BATCH, "dw0": 5, "dw1": 1}
        inputs.append({"command": c, "outcome": failed if kind == "checks" else GOOD})
        buffers[c["prp1"]] = words.astype("<u4").tobytes()
    kind_of = {i["command"]["prp1"]: kind for i, kind in zip(inputs, kinds, strict=True)}
    bad = lambda kind: lambda prp1, n: (0, Status.DATA_TRANSFER_ERROR) if kind_of[prp1] == kind else None  # noqa: E731
    dut = reused(Executor, CONFIG)
    reader = TwoPasses(CONFIG, dut, buffers, stall, 20, fails=[bad("pass 1"), bad("pass 2")])
    events = []
    source = StreamSource(dut.i, [], stall, 1)
    sinks = {name: StreamSink(getattr(dut, name), stall, 2 + k, on_item=lambda item, name=name: events.append((name, item)))
             for k, name in enumerate(("pending", "dense", "item", "executed"))}

    async def begin(ctx):
        await broadcast(dut, [table_write(CONFIG, t, s) for t, s in SPECS.items()])(ctx)
        await ctx.tick()
        source.items += inputs

    going = [k for k, kind in enumerate(kinds) if kind in ("good", "pass 2")]
    simulate(dut, [begin, source, *sinks.values(), *reader.actors], max_cycles=6000,
             until=lambda: len(sinks["executed"].items) >= len(going) and len(sinks["pending"].items) >= len(kinds))
    assert source.drained
    assert reader.out.drained
    assert reader.of_pass == [len(kinds) - kinds.count("checks"), len(going)]
    pending = sinks["pending"].items
    assert [p["cid"] for p in pending] == [*range(len(kinds))]
    assert [p["outcome"]["status"] for p in pending] == [
        {"checks": Status.BAD_BATCH, "pass 1": Status.DATA_TRANSFER_ERROR}.get(kind, 0) for kind in kinds]
    assert [p["outcome"] for p, kind in zip(pending, kinds, strict=True) if kind == "checks"] == [
        {"status": Status.BAD_BATCH, "dw0": 5, "dw1": 1}] * kinds.count("checks")
    for p, i in zip(pending, inputs, strict=True):
        c = i["command"]
        assert (p["qid"], p["batch"], p["out_addr"]) == (c["qid"], c["batch"], c["out_addr"])
    assert [e["status"] for e in sinks["executed"].items] == [
        Status.DATA_TRANSFER_ERROR if kinds[k] == "pass 2" else 0 for k in going]
    # Nothing of a command comes out before it is announced, or after it was executed.
    at = {name: [n for n, (other, _) in enumerate(events) if other == name] for name in sinks}
    announced = [at["pending"][k] for k in going]
    spans = [(a, b) for a, b in zip(announced, at["executed"], strict=True)]
    for k, (a, b) in zip(going, spans, strict=True):
        mine = events[a : b + 1]
        dense, items = ([item for name, item in mine if name == of] for of in ("dense", "item"))
        want = expected(CONFIG, *queries[k])
        if kinds[k] == "good":
            assert (dense, [plain(i) for i in items]) == want
        assert (len(dense), items[-1]["sample"]["last"]) == (len(want[0]), 1)
    inside = sum(name in ("dense", "item") for a, b in spans for name, _ in events[a:b])
    assert inside == len(at["dense"]) + len(at["item"])


def test_an_index_that_appears_between_the_passes_is_not_looked_up():
    rng = random.Random(12)
    args, words = random_query(rng, CONFIG, SPECS, True, False, batch=2)
    changed = words.copy()
    changed[0] = 1
    changed[1] = MAX
    c = command(0, args, words)
    dut = reused(Executor, CONFIG)
    reader = TwoPasses(CONFIG, dut, {c["prp1"]: words.astype("<u4").tobytes()},
                       swaps=[lambda prp1: None, lambda prp1: changed.astype("<u4").tobytes()])
    source, item, executed = StreamSource(dut.i), StreamSink(dut.item), StreamSink(dut.executed)

    async def begin(ctx):
        await broadcast(dut, [table_write(CONFIG, t, s) for t, s in SPECS.items()])(ctx)
        await ctx.tick()
        source.items.append({"command": c, "outcome": GOOD})

    simulate(dut, [begin, source, StreamSink(dut.pending), item, executed, *reader.actors],
             until=lambda: bool(executed.items), max_cycles=500)
    assert executed.items == [{"status": Status.INDEX_OUT_OF_RANGE, "dw0": 1, "dw1": 0}]
    assert all(i["index"] < SPECS[i["table"]].rows for i in item.items)
