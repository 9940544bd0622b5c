# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash.contract import DeviceConfig, RowFormat
from nearflash_hw.lookup.pooling.tables import PoolTables
from nearflash_sim.bench import simulate

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize("seed", range(3))
def test_bases_follow_the_open_tables(seed):
    """After every table that is opened, replaced or closed, both clients see all parameters and bases."""
    dut, rng, lk, done = PoolTables(TINY), random.Random(seed), TINY.lookup, []
    words = {2: lambda dim: dim // 2, 4: lambda dim: dim // 4, 8: lambda dim: -(-dim // 8)}[lk.lanes]

    async def process(ctx):
        opened = {}
        for t in range(lk.max_tables):  # a device closes all of them before it is ready
            ctx.set(dut.table, {"table": t, "open": 0})
            ctx.set(dut.table_valid, 1)
            await ctx.tick()
        for _ in range(25):
            t = rng.randrange(lk.max_tables)
            room = lk.accumulators - sum(v["dim"] for k, v in opened.items() if k != t)
            spec = {"table": t, "open": int(rng.random() < 0.7 and room >= 8),
                    "dim": 4 * rng.randint(1, max(1, min(room, 64) // 8)),
                    "format": rng.choice(list(RowFormat)), "mean": rng.getrandbits(1), "headroom": rng.randint(0, 16),
                    "lsb_exp": rng.randint(-250, 127)}
            ctx.set(dut.table, spec)
            ctx.set(dut.table_valid, 1)
            await ctx.tick()
            ctx.set(dut.table_valid, 0)
            if spec["open"]:
                opened[t] = spec
            else:
                opened.pop(t, None)
            waited = 0
            while ctx.get(dut.busy):
                await ctx.tick()
                waited += 1
            assert waited <= lk.max_tables + 3
            for k in opened:
                other = rng.choice(list(opened))
                for client, table in ((0, k), (1, other)):
                    ctx.set(dut.lookup[client], 1)
                    ctx.set(dut.lookup_table[client], table)
                await ctx.tick()
                for client in range(2):
                    ctx.set(dut.lookup[client], 0)
                await ctx.tick()  # held
                for client, table in ((0, k), (1, other)):
                    want, got = opened[table], ctx.get(dut.params[client])
                    assert ctx.get(dut.base[client]) == sum(words(v["dim"]) for n, v in opened.items() if n < table)
                    assert (got.format, got.mean, got.quads, got.lsb_exp, got.limit) == (
                        want["format"], want["mean"], want["dim"] // 4, want["lsb_exp"],
                        lk.acc_bits - 1 - want["headroom"] - (want["format"] == RowFormat.INT8))
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=8000)
