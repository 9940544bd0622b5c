"""The cost models against figures worked out apart: the paper's ceilings and bytes, hand-counted caches, sums by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nearflash.compiler import PlanOptions, compile_device, with_room
from nearflash.contract import ConfigError, DataError, DeviceConfig
from nearflash.data import QueryBatch
from nearflash.evaluate.costs import Costs
from nearflash.evaluate.host import HostTimes, measure_host
from nearflash.evaluate.systems import SYSTEMS, Load, nearflash
from nearflash.evaluate.traffic import Traffic, direct_mapped_hits, flash_us, lru_hits
from nearflash.evaluate.workload import scaled, stored, synthetic
from nearflash.models import ModelSpec, TableShape, model_spec

COLD = Costs(page_cache_warm=False)


def host(name, mlp=100.0, vector=0.25):
    return HostTimes({name: {b: mlp for b in range(1, 65)}}, {32: vector, 64: vector}, "given")


def evenly(spec, config, queries):
    """Every lookup on a page of its own, the pages in turn over all channels and dies."""
    lists, page = [[[] for _ in range(queries)] for _ in spec.tables], 0
    for q in range(queries):
        for t, table in enumerate(spec.tables):
            per_page = table.rows and config.flash.page_bytes // (4 * table.dim)
            lists[t][q] = [(page + i) * per_page for i in range(table.lookups)]
            page += table.lookups
    return stored("even", QueryBatch.from_lists(np.zeros((queries, 0)), lists))


def full(name, dies):
    spec = scaled(model_spec(name), 30e9)
    spec = replace(spec, tables=tuple(replace(t, rows=t.rows // 4096 * 4096) for t in spec.tables))  # of whole stripes
    return spec, with_room(spec, DeviceConfig.preset("paper", dies=dies))


#: Inferences per second, embedding stage alone, 4 channels at 200 MHz: the published arithmetic.
CEILINGS = {("rmc1", 1): (441, 312), ("rmc1", 2): (881, None), ("rmc1", 4): (1762, 1042), ("rmc2", 1): (72, 52),
            ("rmc2", 2): (145, None), ("rmc2", 4): (290, 174), ("rmc3", 1): (1410, 1000), ("rmc3", 2): (2819, None),
            ("rmc3", 4): (5639, 3333)}


@pytest.mark.parametrize(("name", "dies"), CEILINGS)
def test_evenly_loaded_flash_reaches_the_papers_ceilings(name, dies):
    spec, config = full(name, dies)
    t = Traffic.of(spec, config, evenly(spec, config, 2))
    every = np.ones(len(t.query), bool)
    for whole_pages, want in zip((False, True), CEILINGS[name, dies], strict=True):
        if want is not None:
            assert 2e6 / flash_us(t, 2, every, whole_pages) == pytest.approx([want], rel=0.01)


@pytest.mark.parametrize(("name", "host_mb", "device_in"), [
    ("rmc1", 2.62, 3072), ("rmc2", 15.7, 16384), ("rmc3", 0.82, 11040)])
def test_bytes_of_an_inference_that_misses_everywhere(name, host_mb, device_in):
    spec, config = full(name, 1)
    config = compile_device(spec, config, PlanOptions(onchip_bytes=1 << 40))
    load = Load(Traffic.of(spec, config, evenly(spec, config, 2)), 1, COLD, host(name))
    ssd = SYSTEMS["SSD-S"](load)
    assert ssd.host_bytes == pytest.approx(host_mb * 1e6, rel=0.003)
    assert ssd.cell_reads == 1
    assert ssd.read_amplification == 4096 / (4 * spec.tables[0].dim)
    for system in ("RM-SSD-Naive", "RM-SSD (paper)"):
        assert SYSTEMS[system](load).host_bytes == device_in + 4


def naive_lru(ids, capacity):
    kept, out = [], []
    for x in ids:
        out.append(x in kept)
        kept = [*(y for y in kept if y != x), x][-capacity:]
    return out


@pytest.mark.parametrize("capacity", [1, 2, 5, 100])
def test_an_lru_cache(capacity):
    ids = np.random.default_rng(capacity).integers(0, 9, 400)
    assert lru_hits(ids, capacity).tolist() == naive_lru(ids.tolist(), capacity)


@pytest.mark.parametrize("lines", [1, 4, 64])
def test_a_direct_mapped_cache(lines):
    ids = np.random.default_rng(lines).integers(0, 40, 500)
    held, want = {}, []
    for x in ids.tolist():
        want.append(held.get(x % lines) == x)
        held[x % lines] = x
    assert direct_mapped_hits(ids, lines).tolist() == want


SMALL = ModelSpec("small", (TableShape(64 * 32, 32, 4), TableShape(64 * 32, 32, 2)), 4, (8,), (1,))


def small_load(batch=2, costs=COLD, dies=2):
    """Two queries of six lookups. Table 0 has pages 0 to 63, table 1 pages 64 to 127, 32 rows each; of the twelve lookups
    those of pages 0 and 64 come again, each on the same row."""
    config = compile_device(SMALL, DeviceConfig.preset("paper", channels=2, dies=dies))
    lists = [[[0, 32, 64, 96], [0, 5 * 32, 1, 0]], [[0, 33], [0, 0]]]
    work = stored("small", QueryBatch.from_lists(np.zeros((2, 4)), lists))
    return Load(Traffic.of(SMALL, config, work), batch, costs, host("small")), work


def test_host_systems_by_hand():
    load, _ = small_load()
    # pages in order: 0 1 2 3 64 65 | 0 5 0 0 64 64: seven different ones
    assert load.traffic.page.tolist() == [0, 1, 2, 3, 64, 65, 0, 5, 0, 0, 64, 64]
    ssd = SYSTEMS["SSD-S"](load)
    assert ssd.stages == pytest.approx({"reads": 7 * 22.2 + 5 * 1.5, "pooling": 12 * 0.25, "host MLP": 100})
    assert ssd.queries_per_second == pytest.approx(2e6 / (7 * 22.2 + 5 * 1.5 + 3 + 100))
    assert ssd.latency_us == pytest.approx([7 * 22.2 + 5 * 1.5 + 3 + 100])
    assert ssd.cell_reads == pytest.approx(7 / 12)
    warm = SYSTEMS["SSD-M"](small_load(costs=Costs())[0])
    assert warm.stages["reads"] == pytest.approx(7 * (0.5 * 22.2 + 0.5 * 1.5) + 5 * 1.5)
    assert SYSTEMS["DRAM-only"](load).latency_us == pytest.approx([103])
    mmio = SYSTEMS["EMB-MMIO"](load)
    assert mmio.stages == pytest.approx({"flash": 12 * 20, "loads": 12 * 2, "pooling": 3, "host MLP": 100})
    assert mmio.host_bytes == 6 * 128


def test_in_storage_systems_by_hand():
    load, _ = small_load()
    # two channels of two dies: page p on channel p % 2, die p // 2 % 2. Channel 0 die 0: 0 64 0 0 0 64 64; its others: 2.
    c_ev, page = 2838 / 200, 20.0
    vector = SYSTEMS["EMB-VectorSum"](load)
    assert vector.stages["flash"] == pytest.approx(7 * c_ev)
    assert vector.stages["link"] == pytest.approx(2 * (6 * 4 + 2 * 128) / 3200)
    assert vector.latency_us == pytest.approx([sum(vector.stages.values())])
    assert SYSTEMS["EMB-PageSum"](load).stages["flash"] == pytest.approx(7 * page)
    one = SYSTEMS["EMB-PageSum"](small_load(dies=8)[0])  # pages 0 and 64 again on one die; the bus is free for the most part
    assert one.stages["flash"] == pytest.approx(7 * page)
    # RecSSD: rows that the host has seen (0 of table 0 twice, 0 of table 1 twice) never reach the device
    rec = SYSTEMS["RecSSD"](load)
    assert rec.cell_reads == pytest.approx(8 / 12)
    assert rec.stages["host cache"] == pytest.approx(4 * 0.25)
    assert rec.stages["flash and firmware"] == pytest.approx(3 * page)  # 0, 64 and row 1 of page 0
    slow = SYSTEMS["RecSSD"](small_load(costs=replace(COLD, recssd_firmware_us=50.0))[0])
    assert slow.stages["flash and firmware"] == pytest.approx(8 * 50)


def test_offloaded_systems_overlap_batches():
    load, _ = small_load(batch=1)
    naive, searched = SYSTEMS["RM-SSD-Naive"](load), SYSTEMS["RM-SSD (paper)"](load)
    assert naive.queries_per_second == pytest.approx(1e6 / max(naive.stages.values()))
    # layers 8 x 4 and 1 x 72 by 16 x 16 kernels: 1 and 5 steps of 5 ns
    assert naive.stages["device MLP"] == pytest.approx(6 / 200)
    streamed = SYSTEMS["RM-SSD-Naive"](small_load(1, replace(COLD, onchip_mb=200e-6))[0])
    assert streamed.stages["device MLP"] == pytest.approx(1 / 200 + 4 * 72 / 9000)  # 288 B a query from DRAM, 128 B on chip
    assert searched.latency_us.mean() == pytest.approx(sum(searched.stages.values()))


def test_a_batch_of_one_query_is_followed_by_all_of_its_top_mlp_and_a_larger_one_by_its_last():
    one, two = (SYSTEMS["RM-SSD (paper)"](small_load(b)[0]) for b in (1, 2))
    assert two.stages["top MLP"] == pytest.approx(2 * one.stages["top MLP"])
    rest = sum(v for k, v in two.stages.items() if k != "top MLP")
    assert two.latency_us == pytest.approx([rest + one.stages["top MLP"]])


def test_this_device_is_simulated():
    spec = ModelSpec("flat", (TableShape(4096 * 8, 32, 24),), 4, (8,), (1,))
    config = compile_device(spec, DeviceConfig.preset("paper", channels=1))
    work = synthetic(spec, 32, 0.0)
    got = nearflash(Load(Traffic.of(spec, config, work), 4, COLD, host("flat")), work)
    assert got.cell_reads == 1
    assert got.queries_per_second == pytest.approx(200e6 / (24 * 2838), rel=0.02)
    assert len(got.latency_us) == 8
    assert got.latency_us.mean() == pytest.approx(4 * 24 * 2838 / 200, rel=0.05)
    assert got.host_bytes == 4 * (4 + 1 + 24) + 4


def test_times_of_the_host_are_measured_or_given(tmp_path):
    times = measure_host([SMALL], [1, 4])
    assert times.mlp("small", 4) > 0
    assert 0 < times.vector(32) < 100
    (tmp_path / "report.json").write_text('{"host": {"mlp_us": {"small": {"2": 7.5}}, "vector_us": {"32": 1}}}')
    given = HostTimes.from_json(tmp_path / "report.json")
    assert (given.mlp("small", 2), given.vector(32), given.source) == (7.5, 1.0, "given: report.json")
    with pytest.raises(DataError, match=r"mlp_us\.small\.3"):
        given.mlp("small", 3)
    for text, says in (("[]", "mlp_us"), ('{"mlp_us": {"a": {"1": -1}}, "vector_us": {}}', r"mlp_us\.a\.1 = -1"),
                       ("{", "not the host's times")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=says) as e:
            HostTimes.from_json(tmp_path / "bad.json")
        assert "bad.json" in str(e.value)


def test_costs_are_read_and_checked(tmp_path):
    path = tmp_path / "costs.toml"
    path.write_text("read_miss_us = 90\n")
    costs = Costs.from_toml(path)
    assert (costs.read_miss_us, costs.read_hit_us) == (90, 1.5)
    assert [r["cost"] for r in costs.rows() if r["changed"]] == ["read_miss_us"]
    assert all(r["source"] for r in costs.rows())
    for text, says in (("read_mis_us = 90", "read_mis_us"), ("ssd_s_dram_share = 1.5", r"ssd_s_dram_share = 1\.5: must be"),
                       ("read_miss_us = 0", "read_miss_us = 0"), ('read_hit_us = "x"', "read_hit_us = 'x'")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says) as e:
            Costs.from_toml(path)
        assert "costs.toml" in str(e.value)
