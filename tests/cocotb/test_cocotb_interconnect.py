import re
import shutil
import xml.etree.ElementTree as ET

import pytest
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_sim import cocotb_run
from nearflash_sim.cocotb_run import OUTPUT, BenchFailed, run_bench


@pytest.mark.parametrize("beat_bytes", [8, 16])
def test_interconnect_with_an_independent_memory(beat_bytes):
    results = run_bench(MemInterconnect(beat_bytes, 2, 2), "mem_interconnect", "bench_interconnect",
                        env={"BEAT": str(beat_bytes)}, name=f"interconnect-{beat_bytes}")
    assert len(list(ET.parse(results).getroot().iter("testcase"))) == 6


@pytest.mark.parametrize(("case", "message"), [(None, "failed: write_then_read"),
                                               ("no_such_case", "no cocotb test ran")])
def test_a_failing_bench_fails(case, message):
    """The bench believes in wider beats than the design has."""
    name = "interconnect-broken"
    with pytest.raises(BenchFailed, match=message):
        run_bench(MemInterconnect(8, 2, 2), "mem_interconnect", "bench_interconnect", env={"BEAT": "16"}, name=name,
                  testcase=case, waves=False)
    # Whoever collects the results should not see a failure that had to be.
    (OUTPUT / "results" / f"{name}.xml").unlink()


def test_a_simulation_outlives_the_environment_that_built_it(monkeypatch, tmp_path):
    build = cocotb_run._build

    def elsewhere(*args):
        folder = shutil.copytree(build(*args), tmp_path / "sim")
        binary = (folder / "mem_interconnect").read_bytes()
        gone, places = re.subn(rb"/[^\0]*(?=/cocotb/libs\0)", lambda m: b"/" + b"x" * (len(m[0]) - 1), binary)
        assert places == 1
        (folder / "mem_interconnect").write_bytes(gone)
        return folder

    monkeypatch.setattr(cocotb_run, "_build", elsewhere)
    run_bench(MemInterconnect(8, 2, 2), "mem_interconnect", "bench_interconnect", env={"BEAT": "8"},
              name="interconnect-moved")
