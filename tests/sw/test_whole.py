"""Files appear whole or not at all, wherever a path leads, and what a path may not do is said before the work."""

import errno
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from nearflash.whole import check_target, is_stream, whole_file


def write(target: Path, text: str) -> None:
    with whole_file(target) as part:
        part.write_text(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write(tmp_path / "a" / "b" / "x.json", "1")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x.json"]
    assert (tmp_path / "a" / "b" / "x.json").read_text() == "1"


def test_a_failure_leaves_the_old_content_alone(tmp_path):
    target = tmp_path / "x"
    target.write_text("old")

    def fails():
        with whole_file(target) as part:
            part.write_text("half")
            assert target.read_text() == "old"
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "old")]


def test_a_users_own_part_file_stays(tmp_path):
    (tmp_path / "x.part").write_text("mine")
    write(tmp_path / "x", "new")
    assert (tmp_path / "x.part").read_text() == "mine"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    real.parent.mkdir()
    if exists:
        real.write_text("old")
    link.symlink_to("elsewhere/real")
    write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert [p.name for p in real.parent.iterdir()] == ["real"]


def test_the_old_mode_is_kept_and_a_new_file_has_umasks(tmp_path, umask):
    old = tmp_path / "old"
    old.write_text("")
    old.chmod(0o224)
    write(old, "new")
    write(tmp_path / "new", "new")
    assert (mode(old), mode(tmp_path / "new")) == (0o224, 0o640)


def test_a_secret_is_never_open_to_others_while_it_is_written(tmp_path):
    target = tmp_path / "secret"
    target.write_text("old")
    target.chmod(0o600)
    with whole_file(target) as part:
        assert mode(part) == 0o600


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / "x"
    with whole_file(target) as first, whole_file(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the last to finish
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_longest_name_there_is(tmp_path):
    target = tmp_path / ("ä" * 127)
    write(target, "x")
    assert target.read_text() == "x"


def test_a_device_stays_a_device(tmp_path):
    before = os.stat("/dev/null")
    write(Path("/dev/null"), "x")
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    write(link, "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_ino == before.st_ino
    assert link.is_symlink()


def test_a_pipe_gets_the_content_when_it_is_complete(tmp_path):
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    with whole_file(fifo) as part:
        part.write_text("half")
        part.write_text("whole")
    reader.join(30)
    assert got == ["whole"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_an_open_file_is_written_where_it_is(tmp_path):
    path = tmp_path / "x"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        held = path.stat().st_ino
        write(Path(f"/dev/fd/{fd}"), "new")
    finally:
        os.close(fd)
    assert path.read_text() == "new"
    assert path.stat().st_ino == held


def test_standard_output():
    script = """from pathlib import Path
from nearflash.whole import whole_file
print('before')
with whole_file(Path('-')) as part:
    part.write_bytes(b'\\xff\\n')
print('after')"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"before\n\xff\nafter\n"


def test_what_is_a_stream(tmp_path):
    (tmp_path / "file").write_text("")
    assert [is_stream(Path(p)) for p in ("-", "/dev/null", "/dev/fd/7", tmp_path / "file", tmp_path, tmp_path / "new")] == [
        True, True, True, False, False, False]


def bad_targets(tmp_path: Path) -> dict[str, tuple[Path, int]]:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    return {"a folder": (tmp_path, errno.EISDIR), "below a file": (tmp_path / "file" / "x", errno.ENOTDIR),
            "a loop": (tmp_path / "loop", errno.ELOOP), "too long": (tmp_path / ("x" * 300), errno.ENAMETOOLONG),
            "no such open file": (Path("/dev/fd/987"), errno.ENOENT)}


@pytest.mark.parametrize("what", ["a folder", "below a file", "a loop", "too long", "no such open file"])
def test_what_cannot_be_written_is_found_before_the_work_and_after(tmp_path, what):
    target, code = bad_targets(tmp_path)[what]
    before = sorted(tmp_path.rglob("*"))
    for attempt in (check_target, lambda t: write(t, "x")):
        with pytest.raises(OSError, match=re.escape(str(target))) as e:
            attempt(target)
        assert e.value.errno == code
    assert sorted(tmp_path.rglob("*")) == before


def test_no_permission_is_found_before_the_work(tmp_path, monkeypatch):
    """The answers of the system are those it gives other users than root, who may do anything."""
    (tmp_path / "mine").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="mine"):
        check_target(tmp_path / "mine")

    def refused(path, *args):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError, match=r"folder/new'$"):
        check_target(tmp_path / "folder" / "new")


def test_a_check_leaves_nothing_behind(tmp_path):
    check_target(tmp_path / "a" / "b")
    check_target(Path("-"))
    check_target(Path("/dev/null"))
    assert not list(tmp_path.iterdir())
