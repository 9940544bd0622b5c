"""Several devices: what they do together against one device's simulation and the links' closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.evaluate.costs import ScaleCosts
from nearflash.evaluate.scaling import evaluate_scaling
from nearflash.evaluate.scaling_plot import scaling_plot
from nearflash.evaluate.workload import synthetic
from nearflash.models import ModelSpec, TableShape
from nearflash.tools import load_tool

CONFIG = DeviceConfig.preset("paper")
SPEC = ModelSpec("four", (TableShape(40_000, 32, 16),) * 4, 4, (8,), (1,))
#: Links and a host that take no time.
FREE = ScaleCosts(device_link_gb_per_s=1e6, host_link_gb_per_s=1e6, combine_gb_per_s=1e6, submit_us=1e-6)
WORK = synthetic(SPEC, 64, 1.0)


def scaled(devices, costs=FREE, batch=4, depth=2, work=WORK, **options):
    return evaluate_scaling(CONFIG, SPEC, work, devices, batch, depth, costs, **options)["scaling"]


def test_one_device_is_the_device():
    """Free links: the cycles of the simulator alone on the queries after the learnt quarter."""
    row, = scaled([1])
    bags = list(WORK.commands(4))[4:]
    alone = load_tool("simulator")(CONFIG, [TableSpec(t.rows, t.dim) for t in SPEC.tables], bags, None, 2)
    cycles = int(alone.completed[-1] - alone.submitted[0])
    assert row["queries"] == 48
    assert row["queries_per_second"] == pytest.approx(48 / (cycles / 200e6), rel=1e-4)
    assert row["latency_mean_us"] == pytest.approx(alone.latency.mean() / 200, rel=1e-3)


def test_four_equal_tables_on_four_devices():
    rows = {r["devices"]: r for r in scaled([1, 2, 4, 8])}
    assert [rows[n]["tables_in_parts_count"] for n in (1, 2, 4)] == [0, 0, 0]
    assert rows[8]["tables_in_parts_count"] == 4
    assert 3 < rows[4]["speedup_ratio"] <= 4
    assert rows[1]["speedup_ratio"] == rows[1]["efficiency_share"] == 1
    assert rows[4]["efficiency_share"] == rows[4]["speedup_ratio"] / 4
    assert rows[2]["speedup_ratio"] < rows[4]["speedup_ratio"] < rows[8]["speedup_ratio"]
    assert rows[4]["lookup_balance"] == 1
    assert rows[8]["lookup_balance"] > 0.8
    assert all(0.99 < sum(r["slowest_share"]) < 1.01 for r in rows.values())
    assert {r["lookups"] for r in rows.values()} == {48 * 64}


def test_a_narrow_host_link_sets_the_pace():
    """A batch of 4 queries x 4 tables of a length and 16 rows, read twice: 2,176 bytes, at 1 MB/s 2,176 us, to whichever
    device; meanwhile earlier batches' 4 x 4 x 32 elements, 2,048 bytes, come back, the last after a ms of lookups."""
    for n in (1, 4):
        row, = scaled([n], replace(FREE, host_link_gb_per_s=0.001), depth=4)
        assert 12 * 2176 + 2048 / n < 48e6 / row["queries_per_second"] < 12 * 2176 + 2048 + 1500
        assert row["host_link_busy_share"] > 0.88
    shared, = scaled([4], replace(FREE, device_link_gb_per_s=0.001), depth=4)
    assert shared["queries_per_second"] > 3 * row["queries_per_second"]  # a quarter of it on each device's own link
    assert shared["latency_p50_us"] > 544 + 512


def test_partial_sums_are_added_by_one_thread():
    """8 devices: every table in two parts, 8 x 32 elements x 4 queries = 4,096 bytes a batch at 1 MB/s."""
    free, = scaled([8])
    slow, = scaled([8], replace(FREE, combine_gb_per_s=0.001))
    assert free["combine_busy_share"] < 1e-3
    assert slow["queries_per_second"] == pytest.approx(4 / 4096e-6, rel=0.1)
    whole, = scaled([4], replace(FREE, combine_gb_per_s=0.001))
    assert whole["combine_busy_share"] == 0  # nothing to add


def test_submissions_take_the_hosts_time():
    row, = scaled([4], replace(FREE, submit_us=500.0), depth=1)
    assert row["latency_mean_us"] > 4 * 500
    assert row["queries_per_second"] < 4 / 2000e-6


def test_too_few_queries_are_refused():
    with pytest.raises(DataError, match="queries = 1: must be at least 2"):
        scaled([1], work=synthetic(SPEC, 1, 1.0))
    with pytest.raises(DataError, match="queries = 5: must be more: 1 are learnt from, the others must fill a batch of 8"):
        scaled([1], work=synthetic(SPEC, 5, 1.0), batch=8)


def test_the_plot_is_a_picture():
    result = evaluate_scaling(CONFIG, SPEC, WORK, [1, 2], 4, 2, FREE)
    assert scaling_plot(result).startswith(b"\x89PNG")
    assert np.isfinite([r["latency_p99_us"] for r in result["scaling"]]).all()
