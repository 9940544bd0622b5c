"""A table over two devices: their pooled vectors, added by the host, are one device's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from device_bench import SMALL, assert_same_bits, open_device
from nearflash.evaluate.sharding import Heat, plan_shards
from nearflash.models import ModelSpec, TableShape
from nearflash_sim.small.device import Table, load, make_table

SPEC = ModelSpec("sharded", (TableShape(60, 8, 9), TableShape(40, 4, 3, "mean"), TableShape(20, 8, 1)), 4, (8,), (1,))


def test_two_devices_answer_as_one_would():
    """Rows are small integers, so that sums in parts are the sum: to the bit."""
    rng = np.random.default_rng(5)
    whole = []
    for shape in SPEC.tables:
        table = make_table(rng, SMALL, shape.rows, shape.dim, mode=shape.pool_mode)
        table.rows = rng.integers(-8, 9, (shape.rows, shape.dim)).astype("<f4").view(np.uint8).reshape(shape.rows, -1)
        table.spec = replace(table.spec, lsb_exp=-20, headroom=6)
        whole.append(table)
    lengths = [rng.integers(0, s.lookups + 1, 12) for s in SPEC.tables]
    bags = tuple((rng.integers(0, s.rows, n.sum()), np.cumsum(n) - n) for s, n in zip(SPEC.tables, lengths, strict=True))
    plan = plan_shards(SPEC, SMALL, [Heat.of(s.rows, i, 12) for s, (i, _) in zip(SPEC.tables, bags, strict=True)], 2,
                       SMALL.lbas)
    assert plan.parts(0) == 2
    results = []
    for d, mine in zip(plan.used, plan.split(bags), strict=True):
        with open_device(SMALL) as device:
            load(device, [Table(replace(whole[p.table].spec, rows=p.rows, mode=t.mode),
                                whole[p.table].rows[p.first : p.first + p.rows])
                          for p, t in zip(plan.on(d), plan.tables(d), strict=True)], preload=True)
            results.append(np.concatenate(device.lookup(mine), axis=1))
    want = np.concatenate([t.pooled(SMALL.lookup.acc_bits, b) for t, b in zip(whole, bags, strict=True)], axis=1)
    assert_same_bits(plan.combine(bags, results), want)
