# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.lookup.tags import TagPool
from nearflash_sim.bench import simulate

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize("tags", [4, 16])
@pytest.mark.parametrize("hunger", [1.0, 0.5])
def test_no_tag_is_out_twice_and_none_is_lost(tags, hunger):
    dut, rng = TagPool(replace(TINY, lookup=replace(TINY.lookup, tags=tags))), random.Random(tags)
    out, log = [], []

    async def process(ctx):
        for cycle in range(400):
            take, give = rng.random() < hunger, out and rng.random() < (0.2 if cycle % 100 < 50 else 0.8)
            back = rng.choice(out) if give else 0
            ctx.set(dut.take.ready, take)
            ctx.set(dut.give.valid, int(bool(give)))
            ctx.set(dut.give.payload, back)
            *_, valid, tag, used = await ctx.tick().sample(dut.take.valid, dut.take.payload, dut.used)
            assert used == len(out)
            if not valid:
                assert len(out) >= tags - 1  # a tag given back is there again after a cycle
            if give:
                out.remove(back)
            if take and valid:
                assert tag < tags
                assert tag not in out
                out.append(tag)
            log.append(len(out))

    simulate(dut, [process], until=lambda: len(log) == 400, max_cycles=500)
    assert max(log) == tags
    assert min(log[50:]) < tags
