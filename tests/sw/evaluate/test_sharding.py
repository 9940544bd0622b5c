"""Tables over devices: every row once, loads as even as heat allows, pooling in parts equal to pooling at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import ConfigError, DataError, DeviceConfig
from nearflash.evaluate.sharding import Heat, capacity_pages, plan_shards
from nearflash.models import ModelSpec, TableShape

CONFIG = DeviceConfig.preset("paper")
ROOM = capacity_pages(CONFIG)


def model(*tables: TableShape) -> ModelSpec:
    return ModelSpec("m", tables, 4, (8,), (1,))


def drawn(spec: ModelSpec, queries: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return tuple((np.minimum(rng.geometric(40 / t.rows, queries * t.lookups) - 1, t.rows - 1),
                  np.arange(queries) * t.lookups) for t in spec.tables)


def heats(spec: ModelSpec, bags):
    return [Heat.of(t.rows, i, len(bags[0][1])) for t, (i, _) in zip(spec.tables, bags, strict=True)]


def owned(plan) -> None:
    """Every row of every table is in one piece."""
    for t, table in enumerate(plan.spec.tables):
        ends = 0
        for p in plan.pieces:
            if p.table == t:
                assert p.first == ends
                assert p.rows >= 1
                ends += p.rows
        assert ends == table.rows


def loads(plan) -> list[float]:
    return [sum(p.cycles for p in plan.on(d)) for d in range(plan.devices)]


def test_heat_is_the_share_of_lookups_below_a_row():
    """Rows 2, 2, 5 of ten: one of three lookups was its row's only one, so a third goes to all rows evenly."""
    heat = Heat.of(10, np.array([2, 5, 2]), 3)
    assert heat.lookups == 1
    assert heat.unseen == pytest.approx(1 / 3)
    assert heat.below(0) == 0
    assert heat.below(2) == pytest.approx(2 / 30)
    assert heat.below(3) == pytest.approx(2 / 3 * 2 / 3 + 3 / 30)
    assert heat.below(10) == pytest.approx(1)
    assert heat.row_at(0.5) == 3
    assert heat.row_at(1) == 10
    assert Heat.of(10, np.zeros(0, np.int64), 3).below(5) == pytest.approx(0.5)


def test_equal_tables_stay_whole_and_a_hot_one_is_cut_to_shares():
    equal = model(*[TableShape(5000, 32, 20)] * 8)
    plan = plan_shards(equal, CONFIG, heats(equal, drawn(equal, 50)), 8, ROOM)
    assert [p.rows for p in plan.pieces] == [5000] * 8
    assert sorted(p.device for p in plan.pieces) == list(range(8))
    hot = model(TableShape(100_000, 32, 60), *[TableShape(5000, 32, 10)] * 6)
    plan = plan_shards(hot, CONFIG, heats(hot, drawn(hot, 200)), 4, ROOM)
    owned(plan)
    assert [plan.parts(t) for t in range(7)] == [2, *[1] * 6]  # half of all lookups: two shares of four
    first, second = (p for p in plan.pieces if p.table == 0)
    assert first.cycles == pytest.approx(second.cycles, rel=0.02)
    assert first.rows < second.rows / 2  # low rows are the hot ones
    assert max(loads(plan)) < 1.25 * sum(loads(plan)) / 4


def test_what_is_larger_than_a_device_is_cut_by_size():
    """A cold table of 1,600 pages on devices of 640, and a hot small one."""
    spec = model(TableShape(1600 * 32, 32, 1), TableShape(500, 32, 30))
    plan = plan_shards(spec, CONFIG, heats(spec, drawn(spec, 100)), 4, 640)
    owned(plan)
    assert plan.parts(0) >= 3
    assert all(sum(p.pages for p in plan.on(d)) <= 640 for d in range(4))
    with pytest.raises(DataError, match=r"devices = 2: must be more: the tables take [0-9]+ pages, a device has 640"):
        plan_shards(spec, CONFIG, heats(spec, drawn(spec, 100)), 2, 640)


def test_room_that_is_left_in_bits_is_used():
    """Three tables of 400 pages fit no two of three devices of 640 whole, nor does a fourth; cut, they do."""
    spec = model(*[TableShape(400 * 32, 32, 2)] * 4)
    plan = plan_shards(spec, CONFIG, heats(spec, drawn(spec, 100)), 3, 640)
    owned(plan)
    assert all(sum(p.pages for p in plan.on(d)) <= 640 for d in range(3))


def test_limits_are_named():
    spec = model(*[TableShape(100, 32, 2)] * 4)
    warm = heats(spec, drawn(spec, 10))
    for n in (0, 65):
        with pytest.raises(DataError, match=f"devices = {n}: must be from 1 to 64"):
            plan_shards(spec, CONFIG, warm, n, ROOM)
    few = replace(CONFIG, lookup=replace(CONFIG.lookup, max_tables=1))
    with pytest.raises(DataError, match=r"tables = 4: must be at most lookup\.max_tables \(1\) on each of 3 devices"):
        plan_shards(spec, few, warm, 3, ROOM)
    with pytest.raises(ConfigError, match=r"device_gb = 1e-06: must hold a page"):
        capacity_pages(CONFIG, 1e-6)
    assert capacity_pages(CONFIG, 1) == 244140
    assert ROOM > 1 << 23


@pytest.mark.parametrize("devices", [1, 3, 7])
def test_pooling_in_parts_is_pooling_at_once(devices):
    """Small integers, whose sums fp32 holds; sums and means, tables in parts and whole, every row, empty bags."""
    spec = model(TableShape(40, 8, 30), TableShape(25, 4, 12, "mean"), TableShape(6, 8, 2), TableShape(5, 4, 1, "mean"))
    rng = np.random.default_rng(3)
    bags = []
    for t in spec.tables:
        lengths = rng.integers(0, t.lookups + 1, 40)
        bags.append((rng.permutation(np.arange(lengths.sum()) % t.rows), np.cumsum(lengths) - lengths))
    tables = [rng.integers(-9, 10, (t.rows, t.dim)).astype(np.float32) for t in spec.tables]
    plan = plan_shards(spec, CONFIG, heats(spec, bags), devices, ROOM)
    assert devices == 1 or plan.parts(0) > 1
    assert devices < 7 or plan.parts(1) > 1

    def pooled(rows, indices, offsets, mean):
        lengths = np.diff(np.append(offsets, len(indices)))
        out = np.zeros((len(offsets), rows.shape[1]), np.float64)
        np.add.at(out, np.repeat(np.arange(len(offsets)), lengths), rows[indices])
        return (out / np.maximum(lengths, 1)[:, None] if mean else out).astype(np.float32)

    want = np.concatenate([pooled(rows, *bag, t.mode == "mean")
                           for t, rows, bag in zip(spec.tables, tables, bags, strict=True)], axis=1)
    results = []
    for d, mine in zip(plan.used, plan.split(tuple(bags)), strict=True):
        given = plan.tables(d)
        results.append(np.concatenate([
            pooled(tables[p.table][p.first : p.first + p.rows], *bag, table.mode.name == "MEAN")
            for p, table, bag in zip(plan.on(d), given, mine, strict=True)], axis=1))
    assert np.array_equal(plan.combine(tuple(bags), results), want)
