"""Every cocotb bench of a block: the top it is for, and how many tests it has (the longest builds first)."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import tops
from nearflash_sim.cocotb_run import run_bench

#: bench module -> (top, tests it has)
BENCHES = {
    "bench_device": (tops.device, 4),
    "bench_device_model": (tops.device, 4),
    "bench_lookup": (tops.lookup, 9),
    "bench_channel": (tops.channel, 10),
    "bench_ftl": (tops.ftl, 9),
    "bench_translator": (tops.translator, 9),
    "bench_pooling": (tops.pooling, 60),
    "bench_nvme": (tops.nvme, 13),
    "bench_fc": (tops.fc_cores, 9),
    "bench_mlp": (tops.mlp, 9),
}


@pytest.mark.parametrize("bench", BENCHES)
def test_block(bench):
    top, tests = BENCHES[bench]
    key = f"{tops.with_model()!r} {Path(tops.__file__).read_text()}"  # of all tops
    results = run_bench(top(), top.__name__, bench, key=key)
    assert len(list(ET.parse(results).getroot().iter("testcase"))) == tests
