# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.program import UNIT
from nearflash_hw.mlp.parameters import ParameterBus
from nearflash_sim.bench import StreamSource, simulate

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize("beat", [8, 16, 32])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_beats_and_entries_of_every_record(beat, stall):
    rng = random.Random(beat)
    dut = ParameterBus(replace(TINY, beat_bytes=beat, lookup=replace(TINY.lookup, lanes=beat // 4)))
    records = [(rng.getrandbits(16), rng.randbytes(n * max(beat, UNIT))) for n in (1, 2, 5, 1, 9)]
    items, beats, entries = [], [], []
    for target, raw in records:
        for at in range(0, len(raw), beat):
            word = int.from_bytes(raw[at:at + beat], "little")
            items.append({"target": target, "first": at == 0, "data": word})
            beats.append((target, int(at == 0), word))
        entries += [(target, k, int.from_bytes(raw[k * UNIT:(k + 1) * UNIT], "little")) for k in range(len(raw) // UNIT)]
    got_beats, got_entries = [], []

    async def watch(ctx):
        async for _, _, target, bv, first, word, ev, entry, index in ctx.tick().sample(
                dut.target, dut.beat_valid, dut.beat_first, dut.beat_data, dut.entry_valid, dut.entry, dut.index):
            if bv:
                got_beats.append((target, first, word))
            if ev:
                got_entries.append((target, index, entry))

    fields = dut.i.payload.shape().members
    items = [{k: v for k, v in {**dict.fromkeys(fields, 0), **i}.items() if k in fields} for i in items]
    simulate(dut, [watch, StreamSource(dut.i, items, stall, seed=1)], max_cycles=500,
             until=lambda: len(got_entries) == len(entries))
    assert got_beats == beats
    assert got_entries == entries
