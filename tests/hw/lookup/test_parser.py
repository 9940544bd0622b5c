"""The query parser alone, against nearflash.reference.query."""

import random

import numpy as np
import pytest
from lookup_models import broadcast, small_config, table_write, two_tables
from nearflash.contract import Opcode, Status
from nearflash.reference.query import check_query, pack_queries
from nearflash_hw.interfaces import ItemKind
from nearflash_hw.lookup.parser import QueryParser
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from query_streams import MAX, expected, plain, random_query

CONFIG, SPECS = small_config(), two_tables()


def beats_of(words):
    size = CONFIG.beat_bytes
    content = words.astype("<u4").tobytes()
    content = content.ljust(-(-len(content) // size) * size, b"\xee")
    n = len(content) // size
    return [{"data": int.from_bytes(content[k * size : (k + 1) * size], "little"), "last": int(k == n - 1), "status": 0}
            for k in range(n)]


def parse(queries, transfers, stall, seed):
    """(dense, items, results) of the parser for ``queries``, whose beats are ``transfers``."""
    dut = reused(QueryParser, CONFIG)
    starts = [{"words": len(words), "batch": a["batch"], "tables": a["n_tables"], "dense": a["n_dense"],
               "weighted": int(a["weighted"]), "lookup": int(a["opcode"] == Opcode.LOOKUP)} for a, words in queries]
    start, data = StreamSource(dut.start, [], stall, seed), StreamSource(dut.host_data, [], stall, seed + 1)
    sinks = [StreamSink(port, stall, seed + 2 + k) for k, port in enumerate((dut.dense, dut.item, dut.result))]

    async def begin(ctx):
        await broadcast(dut, [table_write(CONFIG, t, s) for t, s in SPECS.items()])(ctx)
        await ctx.tick()
        start.items += starts
        data.items += [beat for beats in transfers for beat in beats]

    simulate(dut, [begin, start, data, *sinks], until=lambda: len(sinks[2].items) >= len(queries), max_cycles=8000)
    assert start.drained
    assert data.drained
    assert len(sinks[2].items) == len(queries)
    return [s.items for s in sinks]


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_good_streams(stall):
    rng = random.Random(1)
    queries = [random_query(rng, CONFIG, SPECS, lookup, weighted) for lookup in (False, True) for weighted in (False, True)]
    longest = [min(CONFIG.lookup.max_bag, 1 << s.headroom) for s in SPECS.values()]
    args, _ = random_query(rng, CONFIG, SPECS, True, False, batch=1)
    queries.append((args, pack_queries(None, [[np.arange(n)] for n in longest])))
    dense, items, results = parse(queries, [beats_of(words) for _, words in queries], stall, 5)
    want = [expected(CONFIG, *q) for q in queries]
    assert dense == [d for w in want for d in w[0]]
    assert [plain(i) for i in items] == [i for w in want for i in w[1]]
    assert results == [{"status": 0, "dw0": 0, "dw1": 0}] * len(queries)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_damaged_streams_are_judged_and_keep_their_shape(stall):
    """Corner values anywhere, streams cut short and too long, transfers that fail: each beside good ones."""
    rng = random.Random(2)
    queries, transfers, verdicts = [], [], []
    for k in range(40):
        args, words = random_query(rng, CONFIG, SPECS, rng.random() < 0.5, rng.random() < 0.5, batch=rng.randint(1, 3))
        words = words.copy()
        if k % 2:
            words[rng.randrange(len(words))] = rng.choice([0, 1, 2, 17, 59, 60, 149, 150, MAX])
        if k % 5 == 1:
            words = words[: rng.randint(1, len(words))]
        queries.append((args, words))
        beats = beats_of(words)
        verdict = tuple(check_query(words, CONFIG, SPECS, **args))
        if k % 7 == 3:
            at = rng.randrange(len(beats))
            beats = [*beats[:at], {"data": 0, "last": 1, "status": Status.DATA_TRANSFER_ERROR}]
            verdict = (Status.DATA_TRANSFER_ERROR, 0, 0)
        transfers.append(beats)
        verdicts.append(verdict)
    dense, items, results = parse(queries, transfers, stall, 9)
    assert [(r["status"], r["dw0"], r["dw1"]) for r in results] == verdicts
    assert len({v[0] for v in verdicts}) == 4
    items = [plain(i) for i in items]
    for (args, words), verdict in zip(queries, verdicts, strict=True):
        features, samples = args["batch"] * args["n_dense"], args["batch"]
        mine, dense = dense[:features], dense[features:]
        assert [d["last"] for d in mine] == ([0] * (args["n_dense"] - 1) + [1]) * samples if features else not mine
        end = [n for n, i in enumerate(items) if i[0] == ItemKind.SAMPLE][samples - 1] + 1
        got, items = items[:end], items[end:]
        assert [i[0] for i in got if i[0] != ItemKind.LOOKUP] == [*[ItemKind.BAG] * len(SPECS), ItemKind.SAMPLE] * samples
        sent = 0
        for i in got:  # every lookup has its row, every bag the count of what was sent
            if i[0] == ItemKind.LOOKUP:
                assert i[2] < SPECS[i[1]].rows
                sent += 1
            elif i[0] == ItemKind.BAG:
                assert i[2] == sent
                sent = 0
        if verdict[0] == Status.SUCCESS:
            assert (mine, got) == expected(CONFIG, args, words)
    assert not dense
    assert not items
