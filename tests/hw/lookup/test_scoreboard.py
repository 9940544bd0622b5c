# amaranth: UnusedElaboratable=no
import random
from collections import deque

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.interfaces import ItemKind
from nearflash_hw.lookup.scoreboard import Scoreboard
from nearflash_sim.bench import StreamSink, StreamSource, simulate

TINY = DeviceConfig.preset("tiny")
FLAGS = {"media": Status.UNRECOVERED_READ, "not_finite": Status.ROW_NOT_FINITE, "overflow": Status.POOL_OVERFLOW}


def items_of(rng, samples):
    """The item stream of some samples: (items, lookups of each sample)."""
    blank = {"table": 0, "index": 0, "weight": 0, "weighted": 0, "count": 0,
             "sample": {"n": 0, "nb": 0, "last": 0, "lookup": 0, "tables": 0}}
    items, lookups = [], []
    for s in range(samples):
        mine = 0
        for table in range(rng.randint(1, 3)):
            bag = rng.choice([0, 1, 4])
            items += [{**blank, "kind": ItemKind.LOOKUP, "table": table, "index": 1000 * s + mine + i, "weight": i,
                       "weighted": 1} for i in range(bag)]
            mine += bag
            items.append({**blank, "kind": ItemKind.BAG, "table": table, "count": bag})
        lookups.append(mine)
        items.append({**blank, "kind": ItemKind.SAMPLE, "sample": {"n": 0, "nb": 0, "last": s % 3 == 2, "lookup": s % 2,
                                                                   "tables": s % 4}})
    return items, lookups


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_slots_drain_in_order_and_only_when_every_lookup_is_over(stall):
    rng, samples = random.Random(stall), 30
    dut, slots = Scoreboard(TINY), TINY.lookup.sample_slots
    items, lookups = items_of(rng, samples)
    retire, poison, drained = StreamSource(dut.retire, stall=stall), StreamSource(dut.poison, stall=stall), StreamSource(
        dut.drained)
    under_way, over, first_fault = deque(), [0] * samples, [None] * samples
    issued = []

    def lookup(item):
        sample = item["index"] // 1000
        issued.append(item["index"])
        assert item["slot"] == sample % slots
        assert sample < drains_seen() + slots  # nothing of a sample passes before its slot is free
        under_way.append((sample, item))

    def drains_seen():
        return len(drain.items)

    def drain_item(item):
        sample = len(drain.items) - 1
        assert item["slot"] == sample % slots
        assert over[sample] == lookups[sample]
        assert item["bad"] == (first_fault[sample] is not None)
        drained.items.append({"slot": item["slot"]})

    async def end_lookups(ctx):
        while True:
            await ctx.tick()
            if under_way and rng.random() < 0.4 and retire.drained and poison.drained:
                k = rng.randrange(len(under_way))
                sample, item = under_way[k]
                del under_way[k]
                over[sample] += 1
                fault = rng.random() < 0.05
                if rng.random() < 0.8:
                    flag = rng.choice(list(FLAGS)) if fault else None
                    retire.items.append({"slot": item["slot"], "table": item["table"],
                                         **{f: int(f == flag) for f in FLAGS}})
                    status = FLAGS.get(flag)
                else:
                    status = Status.INDEX_OUT_OF_RANGE if fault else None
                    poison.items.append({"slot": item["slot"], "table": item["table"], "status": int(status or 0)})
                if status and not first_fault[sample]:
                    first_fault[sample] = (status, item["table"])

    drain = StreamSink(dut.drain, stall, seed=1, on_item=drain_item)
    verdicts = StreamSink(dut.sample_status, stall, seed=2)
    bags = StreamSink(dut.bag, stall, seed=3)
    simulate(dut, [retire, poison, drained, StreamSink(dut.lookup, stall, seed=4, on_item=lookup), bags, drain, verdicts,
                   end_lookups, StreamSource(dut.item, items, stall, seed=5)],
             until=lambda: len(verdicts.items) == len(drain.items) == samples, max_cycles=20_000)
    assert issued == [i["index"] for i in items if i["kind"] == ItemKind.LOOKUP]
    assert [(b["table"], b["count"]) for b in bags.items] == [
        (i["table"], i["count"]) for i in items if i["kind"] == ItemKind.BAG]
    assert [(v["status"], v["table"]) for v in verdicts.items] == [
        f or (0, 0) for f in first_fault]
    assert [v["sample"] for v in verdicts.items] == [i["sample"] for i in items if i["kind"] == ItemKind.SAMPLE]
    assert any(first_fault)
    assert not under_way
