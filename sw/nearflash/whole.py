"""Files that appear whole or not at all, wherever a path leads: through links, to devices and pipes, to standard output."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["STDOUT", "check_target", "is_stream", "whole_file"]

STDOUT = Path("-")
#: Names of this process's own open files. A regular file behind one is written where it is: whoever opened it holds it.
_OPEN = re.compile(r"/dev/(fd/\d+|stdout|stderr)|/proc/(self|\d+)/fd/\d+")
NAMED = 40  # characters of the target's name in the temporary one: it must stay below the 255 bytes a name may have


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write the content of ``target`` to; it reaches the target when the block ends, and not at all on any error.

    A regular file is replaced in one step by a file made beside it under a name of its own (so writers of one target don't
    meet: the last to finish wins), links to it stay, it keeps its mode and owner, and a new one gets what umask leaves.
    Folders are made. Devices, pipes, this process's open files (``/dev/fd/3``) and ``-``, standard output, get the content
    written to them. Raises what the writing raises, and the ``OSError`` of :func:`check_target`.
    """
    if is_stream(target):
        with tempfile.TemporaryDirectory(prefix="nearflash-") as folder:
            part = Path(folder) / "part"
            yield part
            _send(part, target)
        return
    real, _, old = _place(target)
    real.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(real)
    try:
        if old is not None:
            part.chmod(stat.S_IMODE(old.st_mode) | stat.S_IWUSR | stat.S_IRUSR)  # never open to more than the old one was
        yield part
        if old is not None:
            with suppress(PermissionError):  # only root may give files away
                os.chown(part, old.st_uid, old.st_gid)
            part.chmod(stat.S_IMODE(old.st_mode))
        part.replace(real)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_stream(target: Path) -> bool:
    """Whether ``target`` is written to as it is: ``-``, a device, a pipe, or one of this process's open files."""
    if target == STDOUT or _OPEN.fullmatch(str(target)):
        return True
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_target(target: Path) -> None:
    """Raises the ``OSError`` that :func:`whole_file` would end with: a folder of that name, no permission, a full path that
    leads through a file. Leaves nothing behind."""
    if target == STDOUT:
        return
    if is_stream(target):
        if not os.access(target, os.W_OK):
            raise _error(errno.ENOENT if not target.exists() else errno.EACCES, target)
        return
    real, folder, _ = _place(target)
    try:
        _beside(folder / real.name).unlink()  # tried, not asked: permissions are not all that may stand against it
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(target)) from e


def _place(target: Path) -> tuple[Path, Path, os.stat_result | None]:
    """Where links lead, the nearest folder that exists, and the file that exists; ``OSError`` if it may not be written."""
    found = None
    with suppress(FileNotFoundError):
        found = target.stat()
        if stat.S_ISDIR(found.st_mode):
            raise _error(errno.EISDIR, target)
        if not os.access(target, os.W_OK):
            raise _error(errno.EACCES, target)
    real = Path(os.path.realpath(target))
    folder = next(p for p in real.parents if os.path.lexists(p))
    if not folder.is_dir():
        raise _error(errno.ENOTDIR, target)
    return real, folder, found


def _beside(real: Path) -> Path:
    """A new empty file in the folder of ``real``, its mode that of any new file."""
    while True:
        part = real.with_name(f".{real.name[:NAMED]}.{secrets.token_hex(4)}.part")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return part


def _send(part: Path, target: Path) -> None:
    with part.open("rb") as content:
        if target == STDOUT:
            sys.stdout.flush()
            shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        try:
            with open(os.open(target, os.O_WRONLY | os.O_TRUNC), "wb") as out:
                shutil.copyfileobj(content, out)
        except OSError as e:  # named, which tells a pipe that lost its reader from standard output that did
            raise OSError(e.errno, e.strerror, str(target)) from e


def _error(code: int, target: Path) -> OSError:
    return OSError(code, os.strerror(code), str(target))
