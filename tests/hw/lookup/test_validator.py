"""The checks of a command's header and tables alone, against nearflash.reference.query."""

import random

import pytest
from lookup_models import broadcast, small_config, table_write, two_tables
from nearflash.contract import Opcode, Status
from nearflash.reference.query import check_query
from nearflash_hw.lookup.validator import Validator
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from query_streams import command, random_query


def judge(config, specs, queries, stall=0.0, closed=()):
    dut = reused(Validator, config)
    commands = [command(i, a, w) for i, (a, w) in enumerate(queries)]
    source, sink = StreamSource(dut.cmd, [], stall, seed=1), StreamSink(dut.o, stall, seed=2)

    async def begin(ctx):
        writes = [table_write(config, t, s) for t, s in specs.items()]
        writes += [table_write(config, t, specs[t], is_open=False) for t in closed]
        await broadcast(dut, writes)(ctx)
        await ctx.tick()
        source.items += commands

    simulate(dut, [begin, source, sink], until=lambda: len(sink.items) >= len(commands), max_cycles=6000)
    assert source.drained
    assert [i["command"] for i in sink.items] == commands
    opened = {t: s for t, s in specs.items() if t not in closed}
    for (args, words), got in zip(queries, sink.items, strict=True):
        want = check_query(words, config, opened, **args)
        o = got["outcome"]
        assert (Status(o["status"]), o["dw0"], o["dw1"]) == tuple(want), args
    return {Status(i["outcome"]["status"]) for i in sink.items}


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_headers(stall):
    """Every field at its limits and beyond, alone and with others: the first check to fail decides."""
    rng, config, specs = random.Random(3), small_config(), two_tables()
    choices = {"batch": [0, 1, config.host.max_batch, config.host.max_batch + 1, 0xFFFF],
               "n_tables": [0, 1, 2, 3, config.lookup.max_tables, config.lookup.max_tables + 1, 255], "n_dense": [0, 3, 4],
               "out_addr": [0, 8, 4, 0x1004, config.results_reach - 8, config.results_reach, 1 << 40, (1 << 41) - 8]}
    queries = []
    for k in range(150):
        args, words = random_query(rng, config, specs, rng.random() < 0.5, False, batch=1)
        edits = {name: rng.choice(choices[name]) for name in rng.sample([*choices], rng.choice([0, 1, 1, 2]))}
        if edits.get("batch", 1) not in (0, 1) and edits["batch"] <= config.host.max_batch:
            args, words = random_query(rng, config, specs, args["opcode"] == Opcode.LOOKUP, False, batch=edits["batch"])
        if edits.get("n_tables") == 1 and args["opcode"] == Opcode.LOOKUP:
            args, words = random_query(rng, config, {0: specs[0]}, True, False, batch=args["batch"])
        args.update(edits)
        args["out_addr"] = edits.get("out_addr", 0x1000)
        queries.append((args, words[:0] if k % 10 == 9 else words))
    assert judge(config, specs, queries, stall) == {
        Status.SUCCESS, Status.BAD_BATCH, Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR, Status.UNKNOWN_TABLE}


def test_tables():
    """A closed table, tables of other widths than the model's, more accumulators than there are, no model at all."""
    rng, specs = random.Random(4), two_tables()
    config = small_config()
    both = [random_query(rng, config, specs, lookup, False, batch=1) for lookup in (False, True)]
    assert judge(config, specs, both, closed=(1,)) == {Status.UNKNOWN_TABLE}
    other = {0: specs[1], 1: specs[1]}  # 16 elements instead of 20
    assert judge(config, other, [random_query(rng, config, other, lookup, False) for lookup in (False, True)]) == {
        Status.BAD_BATCH, Status.SUCCESS}
    few = small_config(graph=False, accumulators=16)
    assert judge(few, specs, [random_query(rng, few, specs, True, False)]) == {Status.BAD_BATCH}
    none = small_config(graph=False)
    assert judge(none, specs, [random_query(rng, none, specs, lookup, False) for lookup in (False, True)]) == {
        Status.NO_PROGRAM, Status.SUCCESS}
