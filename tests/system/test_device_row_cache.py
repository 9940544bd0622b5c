"""The row cache on the whole device: whatever changes what a row holds, no lookup gives what it held before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from device_bench import assert_same_bits, expected, open_device, random_bags, submit_lookup
from nearflash.contract import CommandError, RowFormat, Status
from nearflash.contract.table import PoolMode
from nearflash.runtime.layout import table_pages
from nearflash_sim.small.device import CACHED, Table, load, make_table

KINDS = ((50, 8, RowFormat.FP32, PoolMode.SUM), (33, 8, RowFormat.FP16, PoolMode.MEAN),
         (40, 8, RowFormat.INT8, PoolMode.SUM))


@pytest.fixture
def device():
    with open_device(CACHED) as opened:
        rng = np.random.default_rng(0)
        opened.made = [make_table(rng, CACHED, *kind) for kind in KINDS]
        load(opened, opened.made)
        yield opened


def ask(device, rng, batches=3):
    """Random LOOKUPs, exact; returns how many of their rows the cache gave."""
    before = device.counters()["cache_hits_count"]
    for _ in range(batches):
        bags = random_bags(rng, device.made, 5, 10)
        assert_same_bits(device.result(submit_lookup(device, bags)), expected(device, device.made, bags))
    return device.counters()["cache_hits_count"] - before


def changed(rng, table):
    """Other rows for a table, in the same window."""
    table.rows = make_table(rng, CACHED, table.spec.rows, table.spec.dim, table.spec.format, table.spec.mode).rows


def test_rows_from_the_cache_are_exact_and_spare_the_flash(device):
    rng = np.random.default_rng(1)
    ask(device, rng)
    before = device.counters()
    hits = ask(device, rng, 4)
    after = device.counters()
    found = {k: after[k] - before[k] for k in after}
    assert hits > 50
    assert hits + sum(v for k, v in found.items() if k.endswith("reads_count")) == found["lookups_count"]
    assert found["cache_kept_count"] > 0


def test_a_page_written_by_block_io_between_two_queries(device):
    """Each page of each table in turn, and all of a table at once."""
    rng = np.random.default_rng(2)
    for _ in range(2):
        for table in device.made:
            assert ask(device, rng) > 20
            old = table.rows.copy()
            changed(rng, table)
            first, pages = table.spec.extents[0].lba, table_pages(table.spec, table.rows, CACHED)
            whole = rng.integers(2) == 1
            page = int(rng.integers(len(pages)))
            if whole:
                device.write(first, pages.tobytes())
            else:
                device.write(first + page, pages[page].tobytes())
                per_page = table.spec.rows_per_page(CACHED)
                mine = slice(page * per_page, (page + 1) * per_page)
                old[mine] = table.rows[mine]
                table.rows = old
            ask(device, rng)


def test_a_trimmed_page_is_not_found_and_one_written_again_is_new(device):
    rng = np.random.default_rng(3)
    assert ask(device, rng) > 20
    table = device.made[0]
    device.trim(table.spec.extents[0].lba)
    with pytest.raises(CommandError) as e:
        device.result(submit_lookup(device, [(np.array([0]), np.array([0]))] + [(np.zeros(0, np.int64), np.array([0]))] * 2))
    assert e.value.status == Status.ROW_UNMAPPED
    changed(rng, table)
    device.write(table.spec.extents[0].lba, table_pages(table.spec, table.rows, CACHED).tobytes())
    assert ask(device, rng) > 20


def test_tables_opened_again_over_the_same_pages_with_other_rows(device):
    """A row of eight elements, then one of four or of sixteen that begins where it did: as long as its own table says."""
    rng = np.random.default_rng(4)
    first = device.made[0]
    raw = table_pages(first.spec, first.rows, CACHED)
    for dim in (4, 8, 16, 4, 8):
        assert ask(device, rng) > 10
        spec = replace(first.spec, dim=dim, page_rows=0)
        per_page = CACHED.page_beats // spec.stride_beats(CACHED)
        spec = replace(spec, rows=per_page * len(raw), page_rows=per_page)
        device.delete_table(0)
        device.create_table(0, spec, None)
        device.made[0] = Table(spec, np.ascontiguousarray(raw[:, : per_page * 4 * dim]).reshape(spec.rows, -1))
        ask(device, rng)
    table = make_table(rng, CACHED, 60, 12, RowFormat.INT8)
    device.delete_table(0)
    table.spec = device.create_table(0, replace(table.spec, extents=()), table.rows, lba=first.spec.extents[0].lba)
    device.made[0] = table
    ask(device, rng)


def test_what_changed_in_the_dram_while_the_controller_was_disabled(device):
    """The same physical pages hold something else after it."""
    rng = np.random.default_rng(5)
    assert ask(device, rng) > 20
    table = device.made[0]
    old = table_pages(table.spec, table.rows, CACHED)
    changed(rng, table)
    device.flush()
    device.driver.disable()
    end = CACHED.layout.oob
    flash = device.backend.dram_read(0, end)
    for before, after in zip(old, table_pages(table.spec, table.rows, CACHED), strict=True):
        at = flash.find(before.tobytes())
        assert at >= 0
        assert at % CACHED.flash.page_bytes == 0
        device.backend.dram_write(at, after.tobytes())
    device.driver.enable()
    ask(device, rng)
    device.reset()
    load(device, device.made)
    assert ask(device, rng) > 20


def test_a_write_during_lookups_is_seen_by_those_sent_after_it(device):
    rng = np.random.default_rng(6)
    assert ask(device, rng) > 20
    table = device.made[2]
    bags = [random_bags(rng, device.made, 5, 10) for _ in range(2)]
    old = [expected(device, device.made, b) for b in bags]
    tickets = [submit_lookup(device, b) for b in bags]
    first, before = table.spec.extents[0].lba, table.rows
    changed(rng, table)
    device.write(first, table_pages(table.spec, table.rows, CACHED).tobytes())
    for ticket, b, want in zip(tickets, bags, old, strict=True):  # of each row either content, until the write is complete
        got = device.result(ticket)
        assert_same_bits(got[:, :16], want[:, :16])
        assert got.shape == expected(device, device.made, b).shape
    assert (before != table.rows).any()
    ask(device, rng)
