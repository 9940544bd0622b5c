"""The paper's evaluation: what is fitted fits, verdicts follow from the numbers, the report needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from nearflash.compiler import compile_device
from nearflash.contract import ConfigError, DataError, DeviceConfig, cores
from nearflash.contract.resources import Resources
from nearflash.evaluate import published as module
from nearflash.evaluate.compare import differences, read_result
from nearflash.evaluate.costs import Costs
from nearflash.evaluate.host import HostTimes
from nearflash.evaluate.paper import Evaluation, Setting, _bounds, draw, evaluate_paper, steps
from nearflash.evaluate.published import published
from nearflash.evaluate.report import html_report, versions
from nearflash.evaluate.tables import tables
from nearflash.models import model_spec

SMALL = Setting(models=("rmc1", "ncf"), localities=(0.3, 2.0), batches=(1, 2), reference_batch=2, table_gb=0.02,
                fewest_queries=2, fewest_lookups=1, sensitivity_dies=(1, 4), sensitivity_miss_us=(22.2, 200.0),
                goal_localities=(0.3,), goal_dies=(2,), goal_queries=4, goal_batch=2)
HOST = HostTimes({m: {b: 50.0 * b for b in (1, 2, 16)} for m in ("rmc1", "ncf")}, {32: 0.05, 64: 0.05}, "given")


@pytest.fixture(scope="module")
def small():
    seen = []
    found = evaluate_paper(SMALL, Costs(), HOST, seen.append)
    assert len(seen) == steps(SMALL)
    return found


def test_the_grid_has_every_system_everywhere(small):
    cells = {(r["model"], r["locality_k"], r["batch"], r["system"]) for r in small.grid}
    assert len(cells) == len(small.grid) == 2 * 2 * 2 * 10
    assert all(r["queries_per_second"] > 0 and r["latency_mean_us"] > 0 for r in small.grid)
    one = small.cell("rmc1", 0.3, 2)
    assert one["RM-SSD (paper)"]["queries_per_second"] > one["EMB-VectorSum"]["queries_per_second"]
    assert one["EMB-VectorSum"]["queries_per_second"] > one["EMB-PageSum"]["queries_per_second"]
    assert one["SSD-M"]["queries_per_second"] > one["SSD-S"]["queries_per_second"]
    assert one["nearflash"]["cell_reads_per_lookup"] == 1
    assert one["nearflash"]["queries_per_second"] == pytest.approx(one["RM-SSD (paper)"]["queries_per_second"], rel=0.2)


def test_the_fitted_cost_makes_lookups_sixteen_times_as_fast(small):
    assert small.lookup_ratio < 16
    fitted = replace(SMALL, models=("rmc1",), localities=(0.3,), batches=(2,), sensitivity_dies=(1,))
    again = evaluate_paper(fitted, Costs(read_miss_us=small.calibrated_miss_us), HOST)
    assert again.lookup_ratio == pytest.approx(16)
    assert again.calibrated_miss_us == pytest.approx(small.calibrated_miss_us)
    first, second = (next(r for r in published(e, []) if "end to end" in r["what"]) for e in (small, again))
    assert first["here_calibrated_value"] == pytest.approx(second["here_value"])


def test_a_slower_baseline_and_more_dies_are_more_of_an_advantage(small):
    ratio = {(r["dies_per_channel"], r["page_cache"], r["read_miss_us"]): r["RM-SSD (paper) / SSD-S"]
             for r in small.sensitivity}
    assert ratio[1, "cold", 22.2] > ratio[1, "warm", 22.2]
    assert ratio[1, "warm", 200.0] > 5 * ratio[1, "warm", 22.2]
    assert 2 < ratio[4, "warm", 22.2] / ratio[1, "warm", 22.2] <= 4  # small batches load four dies unevenly


def test_each_row_once_is_bounded_as_worked_out():
    """22.2 us a miss, 1.5 us a hit, K = 0.3: about 14, 28 and 57 times SSD-S for 2, 4 and 8 dies a channel."""
    spec = model_spec("rmc1")
    bound = {r["dies_per_channel"]: r["each_row_once_ratio"] for r in _bounds(spec, draw(spec, 32, 0.3, 0), Costs())}
    assert [bound[d] for d in (2, 4, 8)] == pytest.approx([14, 28, 57], rel=0.04)


def by_hand(ssd: float, ours: float, vector: float, recssd: float = 1.0, batches=(16,)) -> Evaluation:
    """Throughputs of RMC1 at one place. SSD-S takes 16 queries / ``ssd``, all of it reads, one page a lookup."""
    rates = {"SSD-S": ssd, "RM-SSD (paper)": ours, "EMB-VectorSum": vector, "RecSSD": recssd, "EMB-PageSum": 1.0}
    grid = [{"model": "rmc1", "locality_k": 0.3, "batch": b, "system": s, "queries_per_second": v,
             "latency_mean_us": b / v * 1e6, "cell_reads_per_lookup": 1.0, "stages_us": {"reads": b / v * 1e6}}
            for b in batches for s, v in rates.items()]
    composition = [{"model": "rmc1", "kernels": k, "saved_share": s} for k, s in (("least", 0.1), ("balanced", 0.48))]
    setting = Setting(models=("rmc1",), batches=batches)
    return Evaluation(setting, Costs(), HOST, grid, [], [], composition, 44.4, vector / ssd)


def verdicts(e: Evaluation) -> dict[str, str]:
    return {r["what"]: r["verdict"] for r in published(e, [])}


def test_verdicts_follow_from_the_numbers():
    # a lookup of SSD-S takes 22.2 us: 640 of them a query; the fitted 44.4 us double that, and each ratio over it
    rate = 1e6 / (640 * 22.2)
    got = verdicts(by_hand(rate, 18 * rate, 8 * rate))
    assert got["RM-SSD over SSD-S, at most"] == "calibrated"
    assert got["EMB-VectorSum over SSD-S, lookups alone, RMC1"] == "calibrated"
    assert got["EMB-VectorSum over SSD-S, end to end, RMC1"] == "calibrated"  # 16 of 17
    assert got["RM-SSD's latency below SSD-S's, at most"] == "calibrated"  # 1 - 1 / 36
    assert got["MLP time saved by composition, mean"] == "reproduced"
    got = verdicts(by_hand(rate, 37 * rate, 17 * rate))
    assert got["RM-SSD over SSD-S, at most"] == got["EMB-VectorSum over SSD-S, end to end, RMC1"] == "reproduced"
    got = verdicts(by_hand(rate, 9 * rate, 3 * rate))
    assert got["RM-SSD over SSD-S, at most"] == "not reproduced"
    assert got["RM-SSD over the baseline SSD"] == "not reproduced"


def test_more_than_published_is_said(small):
    row = {"model": "rmc1", "part": "XC7A200T", "lut_saved_share": 0.8, "ff_saved_share": 0.42, "bram18_saved_share": 0.11,
           "dsp_saved_share": 0.2}
    lines = {r["what"]: r for r in published(small, [row])}
    assert lines["LUT saved by the kernel search, RMC1"]["verdict"] == "not reproduced"
    assert lines["LUT saved by the kernel search, RMC1"]["why"].startswith("More is saved")
    assert lines["DSP saved by the kernel search, RMC1"]["why"].startswith("estimated")
    assert lines["BRAM saved by the kernel search, RMC1"]["verdict"] == "reproduced"


def test_searched_kernels_are_compared_with_fixed_ones(monkeypatch):
    """RMC1's layers 64 x 128, 32 x 64, 256 x 288, 64 x 256 with 16 x 16 multipliers each, and 1 x 64 with 1 x 16: 1,040.
    Nothing beside the MLP's layers counts."""
    found = compile_device(model_spec("rmc1", 2000), DeviceConfig.preset("paper"))

    class Estimator:
        def __init__(self, family):
            assert family == "xc7"

        def device(self, config):
            n = sum(c.kr * c.kc for c in cores(config.mlp.graph))
            return {"mlp.core0": Resources(lut=n, ff=1, bram18=2, dsp=2 * n), "mlp.epilogue0": Resources(ff=1),
                    "nvme": Resources(lut=9999, dsp=9999)}

    monkeypatch.setattr(module, "load_tool", lambda name: Estimator)
    monkeypatch.setattr(module, "fit", lambda *args: SimpleNamespace(config=found))
    row, = module.resource_savings(16)
    multipliers = sum(c.kr * c.kc for c in cores(found.mlp.graph))
    assert row["dsp_saved_share"] == row["lut_saved_share"] == pytest.approx(1 - multipliers / 1040)
    assert row["ff_saved_share"] == row["bram18_saved_share"] == 0


def test_runs_are_long_enough_for_their_locality():
    """Tables of one lookup a query need more queries; a run is of whole batches."""
    assert [Setting().queries(model_spec("rmc1"), b) for b in (1, 16, 64)] == [32, 32, 128]
    assert [Setting().queries(model_spec("ncf"), b) for b in (1, 16, 100)] == [512, 512, 600]


def test_settings_without_the_reference_are_refused():
    with pytest.raises(ConfigError, match="reference"):
        Setting(localities=(1.0,))
    with pytest.raises(ConfigError, match="goal_queries = 32: must be at least 256, the largest batch"):
        Setting(goal_queries=32)
    with pytest.raises(ConfigError, match="rmc1"):
        evaluate_paper(Setting(models=("ncf",)), Costs(), HOST)


class Page(HTMLParser):
    """What a page holds, and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.links, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.images += [v for k, v in attrs if tag == "img" and k == "src"]
        self.links += [v for k, v in attrs if k in ("href", "src") and tag != "img"]

    def handle_data(self, data):
        self.text += data


def test_the_report_holds_all_of_it(small):
    lines = published(small, [])
    shown, pngs = tables(small, lines, []), {"throughput": b"\x89PNG 1", "cell_reads": b"\x89PNG 2"}
    page = Page(html_report("t", "nearflash evaluate --paper --out 'a<b'", versions(), shown, pngs))
    assert page.tags.count("table") == len(shown)
    assert page.tags.count("tr") == sum(len(t.rows) + 1 for t in shown)
    assert not page.links
    assert {"script", "link"}.isdisjoint(page.tags)
    assert [base64.b64decode(src.removeprefix("data:image/png;base64,")) for src in page.images] == [*pngs.values()]
    assert "--out 'a<b'" in page.text
    for text in ("torch", "calibrated", "SSD-S takes", *(r["cost"] for r in small.costs.rows())):
        assert text in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_differences_are_found_by_name(tmp_path, small):
    a = {"published": published(small, []), **small.to_dict()}
    b = json.loads(json.dumps(a))
    assert differences(json.loads(json.dumps(a)), b) == []
    b["grid"][3]["queries_per_second"] *= 1.5
    b["grid"].reverse()  # rows are told apart by what they are of
    b["costs"]["read_hit_us"] = None
    rows = differences(json.loads(json.dumps(a)), b)
    assert [r["figure"] for r in rows] == ["costs.read_hit_us", "grid[model=rmc1 system=EMB-MMIO locality_k=0.3 batch=1]"
                                           ".queries_per_second"]
    assert rows[1]["change"] == pytest.approx(0.5)
    for text, says in (("{}", "must be a result"), ("[1", "not JSON of")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=says):
            read_result(tmp_path / "x.json")


def test_the_command_writes_a_folder_and_compares(tmp_path, monkeypatch, capsys):
    import sys

    from nearflash.cli import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["nearflash", "evaluate", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            main()
        return e.value.code or 0, *capsys.readouterr()

    monkeypatch.setattr(Setting, "quick", lambda **changes: replace(SMALL, localities=(0.3,), **changes))
    (tmp_path / "host.json").write_text(json.dumps(HOST.to_dict()))
    (tmp_path / "slow.toml").write_text("read_miss_us = 90\n")
    code, shown, _ = call("--paper", "--quick", "--seed", 7, "--host", tmp_path / "host.json", "--costs",
                          tmp_path / "slow.toml", "--out", tmp_path / "a")
    assert code == 0
    assert "RM-SSD over SSD-S, at most" in shown
    names = ("throughput", "latency", "bytes", "cell_reads", "stages", "sensitivity", "batch", "latency_by_batch")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"report.html", "paper.json", *(f"{n}.png" for n in names)}
    assert all((tmp_path / "a" / f"{n}.png").read_bytes().startswith(b"\x89PNG") for n in names)
    page = Page((tmp_path / "a" / "report.html").read_text())
    assert f"nearflash evaluate --paper --quick --seed 7 --host {tmp_path / 'host.json'}" in page.text
    assert all(f"{name} {found}" in page.text for name, found in versions().items())
    assert len(page.images) == len(names)
    a, b = tmp_path / "a" / "paper.json", tmp_path / "b.json"
    held = json.loads(a.read_text())
    assert (held["costs"]["read_miss_us"], held["setting"]["seed"], held["host"]["source"]) == (90, 7, "given: host.json")
    held["published"][0]["here_value"] *= 2
    b.write_text(json.dumps(held))
    code, shown, _ = call("--compare", a, b, "--json", tmp_path / "d.json")
    assert code == 0
    assert "1 figure differs" in shown
    difference, = json.loads((tmp_path / "d.json").read_text())["differences"]
    assert difference["change"] == pytest.approx(1)
    assert "no figure differs" in call("--compare", a, a)[1]
    for bad, says in ((("--paper",), "--out = None"), (("--out", "x"), "has no effect without --paper"),
                      (("--paper", "--out", "x", "--model", "rmc1"), "can't be combined with --paper"),
                      (("--compare", a, "no.json"), "no.json: file"), (("--compare", a, a, "--seed", 1), "--seed = 1"),
                      (("--paper", "--out", "x", "--costs", "no.toml"), "no.toml: file")):
        code, shown, error = call(*bad)
        assert (code, shown, error.count("\n")) == (2, "", 1)
        assert says in error
