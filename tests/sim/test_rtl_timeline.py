"""Timelines of the RTL: on one channel of one die they are the simulator's, slice by slice, and no other design changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nearflash.cli import main
from nearflash.contract import ConfigError, NearflashError
from nearflash.timeline import Slice, check_slices, read_timeline, write_timeline
from nearflash.timeline.slices import first_difference
from nearflash_hw.flash.die import Die
from nearflash_hw.verilog import to_verilog
from nearflash_sim.backend import build
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.rtl_timeline import slices_seen
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import open_device
from nearflash_sim.small.device import SMALL
from nearflash_sim.small.models import CASES, configured
from test_device_models import compiled, queries

CONFIG = configured("serial-groups")
SPEC = CASES["serial-groups"].spec


@pytest.fixture(scope="module")
def device():
    _, model = compiled("serial-groups")
    with open_device(CONFIG, observed=True) as opened:
        opened.load(model, preload=True)
        yield opened


def both(device, depth: int, samples: int, infer: bool = True):
    """The same commands in RTL and in the simulator."""
    device.driver.enable()
    rng = np.random.default_rng(samples)
    given = [Query(bags, dense if infer else None) for dense, bags in (queries(SPEC, samples, rng) for _ in range(4))]
    rtl = measure(device, given, depth)
    tables = [device.tables[t] for t in range(len(SPEC.tables))]
    batches = [Batch.of(q.bags, infer, SPEC.dense if infer else 0) for q in given]
    return rtl, Simulator(CONFIG, tables, depth, slices=100_000).run(batches)


@pytest.mark.parametrize(("depth", "samples", "infer"), [(1, 1, True), (1, 3, True), (4, 5, True), (3, 4, False)])
def test_the_rtl_does_what_the_simulator_says(device, tmp_path, nearflash, depth, samples, infer):
    """Groups of two samples and of one, tables of each format, commands that overlap: every slice of every track, by the
    command line too."""
    rtl, simulated = both(device, depth, samples, infer)
    a, b = (check_slices(t.slices) for t in (rtl, simulated))
    tracks = {"channel0.bus", "channel0.die0", "pooling", "drain", *(f"host.slot{i}" for i in range(depth))}
    assert set(a) == tracks | ({"mlp.bot0", "mlp.top0", "mlp.top1"} if infer else set())
    assert sum(len(a[t]) for t in a if t.startswith("host")) == 4
    assert len(a["pooling"]) == rtl.counters["lookups_count"] > 4
    assert len(a["channel0.die0"]) == 3 * len(a["pooling"])
    assert first_difference(a, b) is None
    for name, run in (("rtl", rtl), ("sim", simulated)):
        write_timeline(tmp_path / f"{name}.pftrace", run.slices, CONFIG.clock_mhz)
    r = nearflash("timeline", "diff", tmp_path / "rtl.pftrace", tmp_path / "sim.pftrace")
    assert (r.returncode, r.stdout.split(":")[0]) == (0, "no difference"), r.stdout


def test_what_the_simulator_does_not_know_is_named(device, tmp_path, nearflash):
    """Two commands in flight: the fetch of one's entry meets the other's query on the host bus, up to 8 beats. The same
    slices in the same order, none further apart."""
    rtl, simulated = both(device, 2, 3)
    a, b = (check_slices(t.slices) for t in (rtl, simulated))
    apart = [max(abs(p.begin - q.begin), abs(p.end - q.end)) for t in a for p, q in zip(a[t], b[t], strict=True)]
    assert {t: [s.name for s in v] for t, v in a.items()} == {t: [s.name for s in v] for t, v in b.items()}
    assert max(apart) <= 8
    for name, run in (("rtl", rtl), ("sim", simulated)):
        write_timeline(tmp_path / f"{name}.pftrace", run.slices, CONFIG.clock_mhz)
    found = first_difference(a, b)
    r = nearflash("timeline", "diff", tmp_path / "rtl.pftrace", tmp_path / "sim.pftrace")
    assert r.returncode == bool(max(apart))
    assert (found is None) == (r.returncode == 0)
    assert found is None or f"first difference: {found.track}" in r.stdout


@pytest.fixture
def nearflash(monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["nearflash", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=e.value.code or 0, stdout=out, stderr=err)

    return call


def test_nearflash_run_writes_what_its_counters_say(nearflash, tmp_path):
    """A block is programmed and read while four commands are answered: its phases are on the tracks, under its name."""
    tables = "".join(f'[[tables]]\nrows = {t.rows}\ndim = {t.dim}\nlookups = {t.lookups}\nmode = "{t.mode}"\n'
                     f'format = "{t.format}"\n' for t in SPEC.tables)
    (tmp_path / "model.toml").write_text(f'name = "serial"\ndense = {SPEC.dense}\nbottom = {list(SPEC.bottom)}\n'
                                         f"top = {list(SPEC.top)}\n{tables}")
    (tmp_path / "plan.toml").write_text(CONFIG.to_toml())
    out = tmp_path / "rtl.pftrace"
    r = nearflash("run", "--model", tmp_path / "model.toml", "--plan", tmp_path / "plan.toml", "--queries", 4, "--batch", 1,
                  "--block-io", 1, "--timeline", out, "--json", tmp_path / "r.json")
    assert r.returncode == 0, r.stderr
    tracks = read_timeline(out)
    counts = json.loads((tmp_path / "r.json").read_text())
    names = [s.name for s in tracks["channel0.die0"]]
    assert names.count("array block") == 2  # a write and a read
    assert "data in block" in names
    assert "data out block" in names
    assert sum(map(len, (v for k, v in tracks.items() if k.startswith("host")))) == 5  # one alone, then four
    per_query = sum(t.lookups for t in SPEC.tables)
    assert len(tracks["pooling"]) == sum(n.startswith("array table") for n in names) == 5 * per_query
    assert len(tracks["mlp.top1"]) == len(tracks["drain"]) == 5
    assert counts["queries"] == 4
    r = nearflash("run", "--timeline", out, "--waves", tmp_path / "w.vcd")
    assert r.returncode == 2
    assert "can't be combined with --timeline" in r.stderr


def test_nothing_is_added_to_a_design_that_is_not_observed(monkeypatch):
    forms = ({}, {"model": True}, {"model": True, "gated": False})
    plain = [to_verilog(Die(SMALL), "die", **form) for form in forms]
    observed = to_verilog(Die(SMALL), "die", model=True, observed=True)
    monkeypatch.setattr("nearflash_hw.flash.die.observe", lambda *args, **values: None)
    assert plain == [to_verilog(Die(SMALL), "die", **form) for form in forms]
    assert "nf_seen" in observed
    assert not any("observed" in text for text in plain)


def test_only_an_observed_device_has_a_timeline():
    with open_device(CONFIG) as opened, pytest.raises(NearflashError, match="not built to be observed"):
        with opened.backend.timeline():
            pass
    with pytest.raises(ConfigError, match="observed = True: can't be combined with waveforms"):
        build(CONFIG, observed=True, trace=True)


def test_slots_are_numbered_from_the_first_drained():
    """Two samples in slots 3 and 0 of four; the first has two rows in cycles that follow each other, of one value."""
    layout = (("bus", (("busy", 1), ("command", 1), ("die", 1), ("tag", 2), ("block", 1), ("moves_in", 1))),
              ("die", (("array", 1), ("tag", 2), ("block", 1))),
              ("lookup", (("issue", 1), ("tag", 2), ("slot", 2), ("table", 1))),
              ("row", (("load", 1), ("done", 1), ("slot", 2), ("table", 1))),
              ("drain", (("begin", 1), ("slot", 2), ("end", 1))))
    changes = np.array([[2, 1, 0b1_11_01_1], [2, 2, 0], [0, 5, 0b0_0_01_0_1_1], [0, 7, 0], [1, 7, 0b0_01_1], [1, 9, 0],
                        [3, 20, 0b1_11_0_1], [3, 21, 0b1_11_1_1], [3, 22, 0b0_00_1_0], [3, 23, 0], [4, 30, 0b0_11_1],
                        [4, 31, 0], [4, 33, 0b1_00_0], [4, 34, 0b0_00_1], [4, 35, 0], [4, 37, 0b1_00_0], [4, 38, 0]])
    found = slices_seen(SMALL, layout, changes, 50)
    assert sorted(found) == sorted([
        Slice("channel0.bus", "command table 1 sample 0", 4, 7), Slice("channel0.die0", "command table 1 sample 0", 4, 7),
        Slice("channel0.die0", "array table 1 sample 0", 7, 9), Slice("pooling", "table 1 sample 0", 21, 22),
        Slice("pooling", "table 1 sample 0", 22, 23), Slice("drain", "sample 0", 30, 34),
        Slice("drain", "sample 1", 34, 38)])
