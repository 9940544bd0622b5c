"""Lookups of the whole device: bit-exact to the reference model, close to torch, whatever the memories' timing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from device_bench import assert_same_bits, expected, open_device, random_bags, random_tables, scatter, submit_lookup
from nearflash.contract import RowFormat
from nearflash.contract.table import PoolMode
from nearflash.reference.pooling import decode_rows, error_bound
from nearflash_sim.small.device import SMALL, load, make_table
from nearflash_sim.small.models import configured

GEOMETRIES = {"1x1": configured("serial-groups"), "2x2": SMALL, "4x1": configured("wide-groups")}


def assert_near_torch(table, bag, got):
    """Every element within the model's error bound of torch's EmbeddingBag in double precision."""
    indices, offsets, *weights = bag
    rows = decode_rows(table.rows, table.spec.format, table.spec.dim)
    values = torch.from_numpy(rows.exact())
    mean = table.spec.mode == PoolMode.MEAN
    size = np.abs(rows.exact())
    if table.spec.format == RowFormat.INT8:
        size = rows.values * rows.scale[:, None].astype(float) + np.abs(rows.bias[:, None].astype(float))
    bags = torch.nn.EmbeddingBag.from_pretrained(values, mode="mean" if mean and not weights else "sum")
    magnitude = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(size), mode="sum")
    i, o = torch.from_numpy(indices), torch.from_numpy(offsets)
    w = torch.from_numpy(weights[0]).double() if weights else None
    want = bags(i, o, per_sample_weights=w).numpy()
    total = magnitude(i, o, per_sample_weights=None if w is None else w.abs()).numpy()
    lengths = np.diff(np.append(offsets, len(indices)))
    if mean and weights:  # torch has no weighted mean
        want = want / np.maximum(lengths, 1)[:, None]
    for b, n in enumerate(lengths):
        for e in range(table.spec.dim):
            bound = error_bound(table.spec, int(n), float(got[b, e]), float(total[b, e]) if weights else 0.0)
            assert abs(float(got[b, e]) - want[b, e]) <= bound + 1e-14 * total[b, e]


def run_batches(device, tables, batches):
    """All batches in flight as far as the queue allows; each result as [batch, all dims]."""
    tickets = [submit_lookup(device, bags) for bags in batches]
    return [device.result(t) for t in tickets]


@pytest.mark.parametrize("seed", range(12))
def test_random_tables_and_batches(seed):
    rng = np.random.default_rng(seed)
    with open_device() as device:
        tables = random_tables(rng, SMALL, int(rng.integers(1, 6)))
        scatter(rng, SMALL, tables)
        load(device, tables, preload=bool(seed % 2))
        batches = [random_bags(rng, tables, int(n), weighted=bool(rng.integers(2))) for n in rng.integers(1, 17, 7)]
        for bags, got in zip(batches, run_batches(device, tables, batches), strict=True):
            assert_same_bits(got, expected(device, tables, bags))
            ends = np.cumsum([t.spec.dim for t in tables])
            for table, bag, part in zip(tables, bags, np.split(got, ends[:-1], axis=1), strict=True):
                assert_near_torch(table, bag, part)


@pytest.mark.parametrize("format", list(RowFormat), ids=lambda f: f.name.lower())
def test_every_format_sum_mean_weighted(format):
    rng = np.random.default_rng(int(format))
    with open_device() as device:
        tables = [make_table(rng, SMALL, 33, 28, format, mode) for mode in PoolMode]
        load(device, tables, preload=True)
        for weighted in (False, True):
            bags = random_bags(rng, tables, 12, max_bag=12, weighted=weighted)
            got = device.lookup(bags)
            for table, bag, part in zip(tables, bags, got, strict=True):
                assert_same_bits(part, table.pooled(SMALL.lookup.acc_bits, bag))
                assert_near_torch(table, bag, part)


def test_extreme_shapes():
    """Largest dim, largest batch, largest bag, all bags empty, one row."""
    rng = np.random.default_rng(9)
    limit = SMALL.lookup.max_bag
    with open_device() as device:
        tables = [make_table(rng, SMALL, 30, SMALL.lookup.max_dim, bag=limit), make_table(rng, SMALL, 1, 4, bag=limit)]
        load(device, tables, preload=True)
        n = SMALL.host.max_batch
        empty = (np.zeros(0, np.int64), np.zeros(n, np.int64))
        full = (rng.integers(0, 30, limit), np.array([0]))
        for bags in ([empty, empty], random_bags(rng, tables, n, max_bag=2),
                     [full, (np.zeros(limit, np.int64), np.array([0]))]):
            assert_same_bits(np.concatenate(device.lookup(bags), axis=1), expected(device, tables, bags))
        assert not np.any([p.view(np.uint32) for p in device.lookup([empty, empty])[:1]]), "an empty bag pools to +0.0"


def test_tables_by_block_io_equal_preloaded_ones():
    rng = np.random.default_rng(5)
    tables = random_tables(rng, SMALL, 3)
    batches = [random_bags(rng, tables, 6) for _ in range(3)]
    out, stored = [], []
    for preload in (False, True):
        with open_device() as device:
            load(device, tables, preload=preload)
            out.append(np.concatenate(run_batches(device, tables, batches)))
            stored.append([device.read(e.lba, e.pages) for t in tables for e in t.spec.extents])
    assert_same_bits(out[0], out[1])
    assert stored[0] == stored[1]


TIMINGS = {"fast": (1, 1, 0.0), "stalls": (20, 10, 0.5), "slow": (700, 300, 0.1)}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_results_do_not_depend_on_timing_or_geometry(geometry):
    config = GEOMETRIES[geometry]
    assert geometry == f"{config.flash.channels}x{config.flash.dies}"
    rng = np.random.default_rng(77)  # the same tables and queries for all
    tables = random_tables(rng, config, 4)
    batches = [random_bags(rng, tables, int(n)) for n in (1, 9, 3, 5)]
    cycles = {}
    for name, (read, write, stall) in TIMINGS.items():
        with open_device(config) as device:
            for k, memory in enumerate((device.backend.device.host, device.backend.device.dram)):
                memory.set_timing(read, write, stall, seed=k + 1)
            load(device, tables, preload=name != "slow")
            start = device.backend.cycles
            for bags, got in zip(batches, run_batches(device, tables, batches), strict=True):
                assert_same_bits(got, expected(device, tables, bags))
            cycles[name] = device.backend.cycles - start
    assert cycles["slow"] > cycles["fast"], "the timings made no difference: nothing was tested"


def test_a_table_can_be_replaced_and_deleted():
    rng = np.random.default_rng(3)
    with open_device() as device:
        first, second = make_table(rng, SMALL, 20, 8), make_table(rng, SMALL, 50, 12, RowFormat.FP16)
        for table in (first, second, first):
            load(device, [table])
            bags = random_bags(rng, [table], 4)
            assert_same_bits(device.lookup(bags)[0], table.pooled(SMALL.lookup.acc_bits, bags[0]))
        device.delete_table(0)
        assert not device.tables


def test_counters_count_what_was_asked():
    rng = np.random.default_rng(4)
    with open_device() as device:
        tables = [make_table(rng, SMALL, 50, 16), make_table(rng, SMALL, 50, 16)]
        load(device, tables, preload=True)
        before = device.counters()
        bags = random_bags(rng, tables, 10)
        device.lookup(bags)
        after = {k: v - before[k] for k, v in device.counters().items()}
        lookups = sum(len(b[0]) for b in bags)
        assert after["lookups_count"] == lookups
        assert after["samples_count"] == 10
        assert sum(v for k, v in after.items() if k.endswith("_reads_count")) == lookups
        assert sum(v for k, v in after.items() if k.endswith("_programs_count")) == 0
