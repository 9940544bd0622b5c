"""What is kept by content: made once, and pruned by age and size, never from under who uses it."""

import os
import threading
import time

import pytest
from nearflash import cache
from nearflash.cache import cache_entry, filled_alone, prune

HOUR = 3600


def make(root, name, nbytes, hours):
    """An entry last used ``hours`` ago."""
    folder = root / "kind" / name
    with cache_entry(folder) as work:
        (work / "content").write_bytes(bytes(nbytes))
    used(folder, hours)
    return folder


def used(path, hours):
    os.utime(path, (time.time() - hours * HOUR,) * 2)


def test_an_entry_is_made_once_and_remembers_its_use(tmp_path):
    folder = make(tmp_path, "a", 10, 5)
    before = folder.stat().st_mtime
    with cache_entry(folder) as work:
        assert work is None
    assert folder.stat().st_mtime > before + 4 * HOUR


def test_pruned_by_age_then_by_size_the_longest_unused_first(tmp_path):
    entries = {hours: make(tmp_path, f"e{hours}", 1000, hours) for hours in (0.5, 2, 3, 4, 50)}
    kept = tmp_path / "estimates" / "x.json"
    kept.parent.mkdir()
    kept.write_bytes(bytes(100))
    used(kept, 49)
    assert prune(tmp_path, 1e9, 48 * HOUR) == 1100
    assert not kept.exists()
    assert [h for h, e in entries.items() if e.exists()] == [0.5, 2, 3, 4]
    assert prune(tmp_path, 2500, 48 * HOUR) == 2000
    assert [h for h, e in entries.items() if e.exists()] == [0.5, 2]
    assert prune(tmp_path, 0, 0) == 1000  # but for what may be in use
    assert sorted(p.name for p in (tmp_path / "kind").iterdir()) == ["e0.5", "e0.5.lock"]


def test_failed_and_broken_off_entries_are_pruned(tmp_path):
    folder = tmp_path / "kind" / "f"
    with pytest.raises(IsADirectoryError), cache_entry(folder) as work:  # noqa: PT012
        (work / "content").write_bytes(bytes(100))
        work.write_bytes(b"")
    left = tmp_path / "kind" / ".f.broken"
    left.mkdir()
    for path in (left, folder.with_name("f.failed"), folder.with_name("f.lock")):
        used(path, 5)
    assert prune(tmp_path, 1e9, HOUR) == 100
    assert list((tmp_path / "kind").iterdir()) == []


def test_an_entry_in_the_making_stays(tmp_path):
    folder = tmp_path / "kind" / "m"
    with cache_entry(folder) as work:
        used(work, 5)
        used(folder.with_name("m.lock"), 5)
        assert prune(tmp_path, 0, 0) == 0
        (work / "content").write_text("whole")
    assert (folder / "content").read_text() == "whole"


def test_a_lock_removed_while_waited_for_is_not_taken(tmp_path, monkeypatch):
    """Two who make an entry, one after the other, although the first one's lock file is gone when the second gets it."""
    path, flock, calls = tmp_path / "l.lock", cache.fcntl.flock, []

    def removed_meanwhile(lock, how):
        flock(lock, how)
        calls.append(how)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr(cache.fcntl, "flock", removed_meanwhile)
    with cache._locked(path):
        assert path.exists()
        with pytest.raises(BlockingIOError), cache._locked(path, wait=False):
            pass
    assert len(calls) == 2


def test_what_a_library_keeps_is_filled_by_one_at_a_time_and_pruned(tmp_path):
    folder, order = tmp_path / "kind" / "l", []

    def second():
        with filled_alone(folder):
            order.append((folder / "content").read_text())

    with filled_alone(folder):
        other = threading.Thread(target=second)
        other.start()
        used(folder, 5)
        used(folder.with_name("l.lock"), 5)
        assert prune(tmp_path, 0, 0) == 0  # one is at it
        (folder / "content").write_text("whole")
        order.append("first")
    other.join(60)
    assert order == ["first", "whole"]
    used(folder, 5)
    assert prune(tmp_path, 1e9, HOUR) == 5
    assert not folder.exists()


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    old, new = make(tmp_path, "old", 10, 30), make(tmp_path, "new", 10, 20)
    assert cache.main(["--prune", "--max-days", "1"]) == 0
    assert (old.exists(), new.exists()) == (False, True)
    assert str(tmp_path) in capsys.readouterr().out
