"""The grid's workload with READs of block I/O on the devices that other tests build too, against the published RTL."""

from __future__ import annotations

import pytest

from bench.timing_grid import CASES, DEVICES, LIMITS, run_device

BESIDE_READS = [case for case in CASES if case.block_depth]


@pytest.mark.parametrize("device", [d for d in DEVICES if d.quick], ids=lambda d: d.name)
def test_commands_beside_reads(device):
    """Held closer than the grid's limits (1 and 2 %): most are equal to the cycle, the others differ in a few READs."""
    (row,) = run_device(device, lambda text: None, lambda: None, BESIDE_READS)
    assert row["block_depth"] == 4
    assert row["rtl_cycles"] > 15_000
    for name in (*LIMITS, "block_error"):
        assert row[name] < 0.001, (name, row)
