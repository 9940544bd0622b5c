"""A folder that a build wrote: recognised by its manifest, replaced whole, and never if it holds anything else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from nearflash.contract import ConfigError
from nearflash.contract.shell import MANIFEST

__all__ = ["MADE_BY", "check_folder", "whole_folder"]

MADE_BY = "nearflash build"
NAMED = 40  # characters of the folder's name in the temporary one


def check_folder(option: str, folder: Path) -> None:
    """Raises :class:`~nearflash.contract.ConfigError` unless ``folder`` is new, empty, or one that an earlier build wrote
    and nobody has added to; ``OSError`` where none can be made. Leaves nothing behind."""
    real = Path(os.path.realpath(folder))
    if os.path.lexists(real):
        if not real.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        found = {p.relative_to(real).as_posix() for p in real.rglob("*") if not p.is_dir()}
        known = _written(real / MANIFEST)
        others = sorted(found - known) if known else sorted(found)
        if others:
            raise ConfigError(option, str(folder), f"holds {others[0]}, which no earlier build wrote: name another folder")
    parent = next(p for p in real.parents if os.path.lexists(p))
    try:
        _beside(parent / real.name).rmdir()  # tried, not asked: permissions are not all that may stand against it
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(folder)) from e


def _written(manifest: Path) -> set[str]:
    """The files that the build of ``manifest`` wrote; none if it isn't a build's."""
    try:
        found = json.loads(manifest.read_text())
        made = {f"{found['name']}.bit"} if found["bitstream"] else set()
        return {MANIFEST, *found["files"]} | made if found["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextlib.contextmanager
def whole_folder(option: str, folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place when the block ends, and is removed on any error.

    Raises what :func:`check_folder` does, which is asked again before the earlier folder goes."""
    real = Path(os.path.realpath(folder))
    real.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(real)
    try:
        yield part
        check_folder(option, folder)
        if real.is_dir():
            old = _beside(real)
            real.rename(old)  # takes the place of an empty folder
            try:
                part.rename(real)
            except OSError:
                old.rename(real)
                raise
            shutil.rmtree(old)
        else:
            part.rename(real)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _beside(real: Path) -> Path:
    """A new empty folder beside ``real``, its mode that of any new folder."""
    while True:
        path = real.with_name(f".{real.name[:NAMED]}.{secrets.token_hex(4)}.part")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
