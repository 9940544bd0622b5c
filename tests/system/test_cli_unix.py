"""The command among others: pipes, closed streams, signals; results that are written whatever becomes of the output."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

COMMAND = [sys.executable, "-m", "nearflash"]
SCENE = np.random.default_rng(1).gamma(4, 1 / 4, (40, 50)).astype(np.float32)


def start(*args, **kw):
    kw = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | kw
    return subprocess.Popen([*COMMAND, *map(str, args)], **kw)


def test_help_imports_nothing_slow():
    script = """import sys, contextlib
from nearflash.cli import main
for command in ([], *(c.split() for c in ("run train fit report timing config registers despeckle sar".split()
                                          + ["sar train", "sar evaluate", "sar compare"]))):
    sys.argv = ["nearflash", *command, "--help"]
    with contextlib.suppress(SystemExit):
        main()
slow = {"torch", "scipy", "matplotlib", "rasterio", "skimage", "amaranth", "nearflash_hw"} & set(sys.modules)
sys.exit(f"imported: {slow}" if slow else 0)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: nearflash") == 13


def test_json_on_standard_output_is_alone_there(nearflash, tmp_path):
    np.save(tmp_path / "a.npy", SCENE)
    r = nearflash("despeckle", tmp_path / "a.npy", "-o", tmp_path / "b.npy", "--method", "none", "--domain", "intensity",
              "--json", "-")
    assert json.loads(r.stdout)["failed_files"] == 0
    assert "despeckled" in r.stderr
    r = nearflash("config", "tiny", "--json", "/dev/stdout")
    assert json.loads(r.stdout)["config"]["name"] == "tiny"
    assert 'name = "tiny"' in r.stderr
    assert 'name = "tiny"' in nearflash("config", "tiny").stdout  # and the next one prints as ever


def test_a_file_may_be_called_minus(nearflash, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nearflash("config", "tiny", "--json", "./-").returncode == 0
    assert json.loads((tmp_path / "-").read_text())["config"]["name"] == "tiny"


def test_a_figure_on_standard_output(tmp_path):
    np.save(tmp_path / "a.npy", SCENE)
    done = start("sar", "compare", tmp_path / "a.npy", "--methods", "none", "--domain", "intensity", "-o", "-",
                 text=False)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert out.startswith(b"\x89PNG")
    assert out.endswith(b"IEND\xaeB`\x82")


def test_results_are_written_though_nobody_reads_the_tables(tmp_path):
    np.save(tmp_path / "a.npy", SCENE)
    p = start("despeckle", tmp_path / "a.npy", "-o", tmp_path / "b.npy", "--method", "none", "--domain", "intensity",
          "--json", tmp_path / "x.json")
    p.stdout.close()
    assert (p.wait(), p.stderr.read()) == (0, "")
    assert json.loads((tmp_path / "x.json").read_text())["failed_files"] == 0
    p = start("registers", "--json", tmp_path / "y.json")  # its output is its result, but for the file
    p.stdout.close()
    assert (p.wait(), p.stderr.read()) == (141, "")
    assert json.loads((tmp_path / "y.json").read_text())["registers"]
    p = start("run", "--help")
    p.stdout.close()
    assert (p.wait(), p.stderr.read()) == (141, "")


@pytest.mark.parametrize(("redirects", "args", "code", "says"), [
    (">&-", ["config", "tiny", "--json", "x"], 0, ""), ("<&- >&- 2>&-", ["config", "tiny", "--json", "x"], 0, ""),
    (">&-", ["config", "tiny"], 2, "standard output = 'closed'"),
    (">&-", ["config", "tiny", "--json", "-"], 2, "--json = '-': standard output is closed"),
    (">/dev/full", ["config", "tiny"], 2, "No space left on device"),
    ("", ["config", "tiny", "--json", "/dev/full"], 2, "No space left on device: '/dev/full'"),
])
def test_closed_and_full_streams(tmp_path, redirects, args, code, says):
    done = subprocess.run(["sh", "-c", f'exec "$@" {redirects}', "sh", *COMMAND, *args], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == bool(says)
    if code == 0:
        assert json.loads((tmp_path / "x").read_text())["config"]["name"] == "tiny"


@pytest.mark.parametrize(("error", "says"), [
    (MemoryError("Unable to allocate 9 TiB"), "not enough memory: Unable to allocate 9 TiB"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"), "not enough memory"),
    (OSError(5, "Input/output error", "x[0].json"), "OSError: [Errno 5] Input/output error: 'x[0].json'"),
    (ModuleNotFoundError("No module named 'rasterio'", name="rasterio"), "rasterio is missing: pip install"),
])
def test_what_goes_wrong_is_one_line(nearflash, monkeypatch, error, says):
    monkeypatch.setattr("nearflash.cli.app.load_config", lambda source: (_ for _ in ()).throw(error))
    r = nearflash("config")
    assert r.returncode == 2
    assert says in r.stderr
    assert r.stderr.count("\n") == 1


def test_a_bug_stays_a_traceback(monkeypatch):
    from nearflash.cli import main

    monkeypatch.setattr("nearflash.cli.app.load_config", lambda source: {}["bug"])
    monkeypatch.setattr(sys, "argv", ["nearflash", "config"])
    with pytest.raises(KeyError):
        main()


#: What a process is told by default, however the one that started the tests was (``&`` and nohup ignore some).
LISTENING = """import signal
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

INTERRUPTED = LISTENING + """
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from nearflash.cache import cache_entry
from nearflash.cli import app, main

def build(source):
    with cache_entry(Path("cache/entry")) as work, ThreadPoolExecutor(2) as pool:
        (work / "half").write_text("")
        def tool(k):
            with cache_entry(Path(f"cache/tool{k}")):
                child = subprocess.Popen(["sh", "-c", "echo $$ >> pids; sleep 600 & echo $! >> pids; touch ready; wait"])
                if child.wait():
                    raise RuntimeError("the tool failed")
        list(pool.map(tool, range(9)))

app.load_config = build
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_told_to_stop_it_ends_its_tools_and_cleans_up(tmp_path, number, code):
    p = subprocess.Popen([sys.executable, "-c", INTERRUPTED, "config"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    while not (tmp_path / "ready").exists():
        assert p.poll() is None, p.stderr.read()
        time.sleep(0.02)
    p.send_signal(number)
    assert p.communicate(timeout=60) == ("", "")
    assert p.returncode == code
    for pid in (tmp_path / "pids").read_text().split():
        assert not running(int(pid))
    assert {f.suffix for f in (tmp_path / "cache").iterdir()} == {".lock"}


STARTING = LISTENING + """
import os, threading, time
from nearflash.cli import app, main

def build(source):
    with threading._active_limbo_lock:  # as while a thread is being started
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)

app.load_config = build
main()
"""


def test_told_to_stop_while_a_thread_is_started():
    done = subprocess.run([sys.executable, "-c", STARTING, "config"], capture_output=True, text=True, timeout=30,
                          check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def running(pid):
    """Whether a process runs; one that ended and whose parent hasn't asked yet doesn't."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_interruption_while_modules_are_imported(tmp_path):
    """As soon as the command's own first line runs, whatever is imported then."""
    script = LISTENING + """import os, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from nearflash.cli import main
sys.argv = ["nearflash", "run", "--queries", "1", "--model", sys.argv[-1]]
main()"""
    for module in ("rich", "numpy", "torch"):
        done = subprocess.run([sys.executable, "-c", script, module], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
