"""Pieces by tag and index: what was placed last is there, beside what is placed in the same cycle."""

import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.block.layouts import BlockLayouts
from nearflash_hw.block.piece_table import PieceTable
from nearflash_sim.bench import reused, simulate

CYCLES = 400
TINY = DeviceConfig.preset("tiny")
CONFIGS = {"tiny": TINY, "wide": replace(TINY, beat_bytes=32, lookup=replace(TINY.lookup, lanes=8))}


def pieces(rng, layout, beat_bytes):
    """A piece for any place: addresses of whole beats, every field at its ends and between."""
    fields = {name: field.width for name, field in layout if name not in ("tag", "index")}
    piece = {name: rng.choice([0, (1 << bits) - 1, rng.getrandbits(bits)]) for name, bits in fields.items()}
    return piece | {"addr": piece["addr"] // beat_bytes * beat_bytes}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_row_is_what_was_placed_last(name, share):
    """Also one that is read in the cycle in which it is placed: it's the former."""
    config = CONFIGS[name]
    dut, layout = reused(PieceTable, config), BlockLayouts.of(config).place
    rng, table, seen, overlaps = random.Random(share), {}, [], []
    places = [(tag, index) for tag in range(config.host.block_reads) for index in range(1 << layout["index"].width)]

    async def bench(ctx):
        # Every place once, so that there is something to read.
        for n, (tag, index) in enumerate([*places, *rng.choices(places, k=CYCLES)]):
            put = n < len(places) or rng.random() < share
            piece = pieces(rng, layout, config.beat_bytes)
            ctx.set(dut.place.payload, {"tag": tag, "index": index, **piece})
            ctx.set(dut.place.valid, put)
            if table:
                at = (tag, index) if (tag, index) in table and rng.random() < 0.5 else rng.choice([*table])
                ctx.set(dut.tag, at[0])
                ctx.set(dut.index, at[1])
                row = ctx.get(dut.row)
                assert {k: row[k] for k in piece} == table[at]
                seen.append(at)
                overlaps.append(put and at == (tag, index))
            await ctx.tick()
            if put:
                table[tag, index] = piece

    simulate(dut, [bench], until=lambda: len(seen) == len(places) + CYCLES - 1, max_cycles=2 * CYCLES)
    assert set(seen) == set(places)
    assert any(overlaps)
