"""``nearflash evaluate --sweep`` and ``--devices``: points whatever the pool, after a crash too; bad input in one line."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

MODEL = """name = "one"
dense = 4
bottom = [8]
top = [1]
[[tables]]
rows = 5000
dim = 32
lookups = 8
"""


def written(folder: Path, text: str, name: str = "sweep.toml") -> Path:
    (folder / "one.toml").write_text(MODEL)
    path = folder / name
    path.write_text(f'model = "{folder / "one.toml"}"\nlookups_only = true\nchannels = 1\n{text}')
    return path


def points(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "points").glob("*.json")}


@pytest.fixture
def ray_stub(monkeypatch):
    """Ray's calls in this process; what was asked of it."""
    asked = []

    class Task:
        def __init__(self, work):
            self.work = work

        def remote(self, job):
            asked.append(job)
            return Reference(self.work(job))

    class Reference:
        def __init__(self, value):
            self.value = value

    module = types.ModuleType("ray")
    module.init = lambda address, **options: asked.append(address)
    module.remote = Task
    module.wait = lambda refs: (refs[-1:], refs[:-1])  # not in the order in which they were sent
    module.get = lambda ref: ref.value
    module.shutdown = lambda: asked.append("shutdown")
    monkeypatch.setitem(sys.modules, "ray", module)
    return asked


def test_all_combinations_whatever_the_pool(nearflash, tmp_path, ray_stub):
    """Processes and Ray write the same points, which are what the command alone says; a second run simulates none."""
    file = written(tmp_path, "dies = [1, 2]\nlocality = [0, 2.0]\nqueries = 30\n")
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "a", "--workers", 1, "--json", tmp_path / "a.json")
    assert r.returncode == 0, r.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["varied"] == ["dies", "locality"]
    assert [(p["dies"], p["locality"]) for p in found["points"]] == [(1, 0), (1, 2.0), (2, 0), (2, 2.0)]
    rates = [p["result"]["queries_per_second"] for p in found["points"]]
    assert rates[2] != rates[3]
    assert min(rates[2:]) > max(rates[:2])  # two dies are faster than one
    single = nearflash("evaluate", "--model", tmp_path / "one.toml", "--lookups-only", "--channels", 1, "--dies", 2,
                       "--locality", 2.0, "--queries", 30, "--json", "-")
    assert json.loads(single.stdout)["queries_per_second"] == rates[3]
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "b", "--ray", "ray://head:10001")
    assert r.returncode == 0, r.stderr
    assert (ray_stub[0], ray_stub[-1], len(ray_stub)) == ("ray://head:10001", "shutdown", 6)
    assert points(tmp_path / "b") == points(tmp_path / "a")
    assert (tmp_path / "b" / "sweep.json").read_bytes() == (tmp_path / "a" / "sweep.json").read_bytes()
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "b", "--ray", "ray://head:10001")
    assert "4 of 4 points are in" in r.stdout
    assert len(ray_stub) == 6


def test_a_run_that_was_killed_goes_on(nearflash, tmp_path):
    """Killed in a point that takes for ever: what was done stays whole, no process stays, and only the rest is simulated."""
    file = written(tmp_path, "queries = [20, 30, 90000000]\n")
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-m", "nearflash", "evaluate", "--sweep", str(file), "--out", str(out),
                              "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 600
        while not points(out) if out.is_dir() else True:
            assert time.monotonic() < end, "no point was written"
            assert child.poll() is None, child.stderr.read().decode()
            time.sleep(0.05)
        workers = [int(p) for p in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    finally:
        child.kill()
        child.wait(60)
    assert child.returncode == -signal.SIGKILL
    held = points(out)
    assert 1 <= len(held) <= 2
    assert all(json.loads(text)["result"]["queries"] in (20, 30) for text in held.values())
    assert not (out / "sweep.json").exists()
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < end, "a worker outlives the run that started it"
        time.sleep(0.05)
    file = written(tmp_path, "queries = [20, 30, 40]\n")
    r = nearflash("evaluate", "--sweep", file, "--out", out, "--workers", 1)
    assert r.returncode == 0, r.stderr
    assert f"{len(held)} of 3 points are in" in r.stdout
    now = points(out)
    assert len(now) == 3
    assert {name: now[name] for name in held} == held
    assert [p["result"]["queries"] for p in json.loads((out / "sweep.json").read_text())["points"]] == [20, 30, 40]


def test_a_point_that_cannot_be_is_said_and_the_others_are_done(nearflash, tmp_path, ray_stub):
    file = written(tmp_path, "dies = [1, 3]\nqueries = 10\n")
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "a", "--ray", "local", "--json", tmp_path / "a.json")
    assert r.returncode == 1
    assert "flash.dies = 3: must be a power of two" in r.stdout
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["failed_points_count"] == 1
    assert "error" in found["points"][1]
    assert len(points(tmp_path / "a")) == 1
    damaged = next((tmp_path / "a" / "points").glob("*.json"))
    damaged.write_text("{}")
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "a", "--ray", "local")
    assert (r.returncode, r.stderr.count("\n")) == (2, 1)
    assert f"{damaged}: result = None" in r.stderr


@pytest.mark.parametrize(("text", "says"), [
    ("", "lookups_only"), ("die = 2", "die = 2: unknown option"), ("dies = []", "dies = []: must hold a value"),
    ("dies = [2, true]", "dies = True: must be an integer"), ("rows = 0", "--rows = 0: must be from 1"),
    ("trace = 't'\nlocality = 1", "--locality = 1: can't be combined with --trace"),
    ("cache_unit = 'page'", "has no effect without --cache-mib"), ("trace = 'none.log'", "none.log: file = "),
    ("dies = [" + "1, " * 101 + "]\nseed = [" + "1, " * 101 + "]", "points = 10201: must be at most 10000"),
    ("dies = [1", "not valid TOML")])
def test_bad_files(nearflash, tmp_path, text, says):
    file = written(tmp_path, text) if text else tmp_path / "none.toml"
    r = nearflash("evaluate", "--sweep", file, "--out", tmp_path / "out")
    assert (r.returncode, r.stdout, r.stderr.count("\n")) == (2, "", 1)
    assert (says if text else "none.toml: file = ") in r.stderr
    assert not (tmp_path / "out" / "points").exists()


@pytest.mark.parametrize(("args", "says"), [
    (("--sweep", "x.toml"), "--out = None: must be given with --sweep"),
    (("--sweep", "x.toml", "--out", "o", "--dies", 2), "--dies = 2: can't be combined with --sweep"),
    (("--ray", "local"), "--ray = 'local': has no effect without --sweep"),
    (("--sweep", "x.toml", "--out", "o", "--workers", 2, "--ray", "local"), "can't be combined with --workers"),
    (("--devices", "4"), "--devices = '4': needs --lookups-only"),
    (("--devices", "65", "--lookups-only"), "--devices = '65': must be from 1 to 64"),
    (("--devices", "2,2", "--lookups-only"), "--devices = '2,2': must not name a number twice"),
    (("--devices", "x", "--lookups-only"), "--devices = 'x'"),
    (("--devices", "2", "--lookups-only", "--timeline", "t"), "can't be combined with --devices"),
    (("--devices", "2", "--lookups-only", "--board", "zcu104"), "can't be combined with --devices"),
    (("--device-gb", 1), "--device-gb = 1.0: has no effect without --devices"),
    (("--plot", "p.png"), "has no effect without --devices"),
    (("--devices", "2", "--lookups-only", "--costs", "none.toml"), "none.toml: file = ")])
def test_bad_options(nearflash, args, says):
    r = nearflash("evaluate", *args)
    assert (r.returncode, r.stdout, r.stderr.count("\n")) == (2, "", 1)
    assert says in r.stderr


def test_devices_are_compared_and_drawn(nearflash, tmp_path):
    (tmp_path / "one.toml").write_text(MODEL)
    (tmp_path / "costs.toml").write_text("host_link_gb_per_s = 1\n")
    r = nearflash("evaluate", "--model", tmp_path / "one.toml", "--lookups-only", "--channels", 1, "--queries", 80,
                  "--batch", 4, "--devices", "1,2", "--device-gb", 0.001, "--costs", tmp_path / "costs.toml", "--plot",
                  tmp_path / "s.png", "--json", tmp_path / "s.json")
    assert r.returncode == 0, r.stderr
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "s.json").read_text())
    one, two = found["scaling"]
    assert found["costs"]["host_link_gb_per_s"] == 1
    assert found["device_capacity_bytes"] == 999424  # whole pages of a million bytes
    assert two["tables_in_parts_count"] == 1
    assert 1.5 < two["speedup_ratio"] == two["queries_per_second"] / one["queries_per_second"] < 2.1
    assert "even: the mean over all devices" in r.stdout
    few = nearflash("evaluate", "--model", tmp_path / "one.toml", "--lookups-only", "--channels", 1, "--queries", 80,
                    "--devices", "1", "--device-gb", 0.0005)
    assert few.returncode == 2
    assert "devices = 1: must be more: the tables take 157 pages, a device has 122" in few.stderr
