"""Results kept by content: builds, generated Verilog, synthesis.

A key holds everything that can change a result. An entry is a folder, made under a temporary name that is renamed when
complete, so it is either whole or absent; a lock per entry keeps two processes from doing the same work.

``python -m nearflash.cache --prune`` removes what was not used lately.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

__all__ = ["cache_dir", "cache_entry", "digest", "filled_alone", "interrupted", "main", "prune", "sources_digest"]

IN_USE = 3600  # seconds since its last use in which an entry is never removed: whoever asked for it may still read it

#: Set by a program that was told to stop and ends its tools: what then fails in its threads isn't worth keeping.
interrupted = threading.Event()


def cache_dir() -> Path:
    """``$NEARFLASH_CACHE``, else ``build/`` of the checkout this package runs from, else ``~/.cache/nearflash``."""
    given = os.environ.get("NEARFLASH_CACHE")
    if given:
        return Path(given).expanduser().resolve()
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file() and (root / "sw" / "nearflash").is_dir():
        return root / "build"
    return Path("~/.cache/nearflash").expanduser()


def digest(*parts: str) -> str:
    """A cache key of ``parts``; no two different lists of parts share one."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        h.update(len(raw).to_bytes(8, "little") + raw)
    return h.hexdigest()[:24]


def sources_digest(*packages: str, without: Container[str] = ()) -> str:
    """Of the Python sources of ``packages`` (import names), but for what lies in folders that ``without`` names.

    Raises ``ModuleNotFoundError`` for a package that isn't installed.
    """
    parts: list[str] = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"package {package} is missing: install nearflash[hw]", name=package)
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            if not any(part in without for part in path.relative_to(root).parts):
                parts += [str(path.relative_to(root)), path.read_text()]
    return digest(*parts)


@contextlib.contextmanager
def cache_entry(folder: Path) -> Iterator[Path | None]:
    """Yields None if cache entry ``folder`` exists, else a temporary folder that becomes it if the body succeeds, is kept as
    ``<entry>.failed`` if it fails, and is removed if it's interrupted."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_lock_file(folder)):
        if folder.is_dir():
            os.utime(folder)  # when it was used last
            yield None
            return
        failed = _failed(folder)
        shutil.rmtree(failed, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield work
        except BaseException as e:
            if isinstance(e, Exception) and not interrupted.is_set():
                work.rename(failed)
            else:  # a failure that shows nothing but the interruption
                shutil.rmtree(work, ignore_errors=True)
            raise
        work.rename(folder)


@contextlib.contextmanager
def filled_alone(folder: Path) -> Iterator[None]:
    """One process at a time: of those that want what a library keeps in cache entry ``folder`` by itself, the first makes it
    while the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(_lock_file(folder)):
        os.utime(folder)
        yield


def _lock_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _failed(folder: Path) -> Path:
    return folder.with_name(folder.name + ".failed")


@contextlib.contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Raises ``BlockingIOError`` if another process has the lock and this one shall not ``wait``."""
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Its holder may have removed the file meanwhile (:func:`prune`): what was locked is then nobody's lock.
            if not (path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno()))):
                continue
            yield
            return


def prune(root: Path, max_bytes: float, max_seconds: float) -> int:
    """Remove from cache ``root`` what was not used for ``max_seconds``, then the longest unused until ``max_bytes`` are
    left. Returns the bytes removed. An entry that another process makes stays, and so does any used within the last hour."""
    found = sorted((used, path, size) for path in _entries(root) for used, size in [_use(path)])
    left, removed, now = sum(size for _, _, size in found), 0, time.time()
    for used, path, size in found:
        age = now - used
        if age > IN_USE and (age > max_seconds or left - removed > max_bytes) and _remove(path):
            removed += size
    return removed


def _entries(root: Path) -> list[Path]:
    """Entries, be they complete, failed or in the making, and single files kept by content."""
    locked = {lock.with_suffix("") for lock in root.glob("**/*.lock")}
    return sorted(locked) + sorted(p for p in root.glob("estimates/*.json"))


def _parts(entry: Path) -> list[Path]:
    return [p for p in (entry, _failed(entry), *entry.parent.glob(f".{entry.name}.*")) if p.exists()]


def _use(entry: Path) -> tuple[float, int]:
    """(time of its last use, bytes) of an entry."""
    parts = _parts(entry) or [_lock_file(entry)]
    files = [f for p in parts for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file()]
    return max(p.stat().st_mtime for p in parts), sum(f.stat().st_size for f in files)


def _remove(entry: Path) -> bool:
    if entry.suffix == ".json":
        entry.unlink(missing_ok=True)
        return True
    lock = _lock_file(entry)
    try:
        with _locked(lock, wait=False):
            for part in _parts(entry):
                shutil.rmtree(part)
            lock.unlink()
    except BlockingIOError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nearflash.cache", description="Builds and results kept by content.")
    parser.add_argument("--prune", action="store_true", help="remove what was not used lately")
    parser.add_argument("--max-gb", type=float, default=4.0, help="size to prune to (default: %(default)s GB)")
    parser.add_argument("--max-days", type=float, default=14.0, help="keep what was used since (default: %(default)s days)")
    args = parser.parse_args(argv)
    if args.prune:
        removed = prune(cache_dir(), args.max_gb * 1e9, args.max_days * 86400)
        print(f"{cache_dir()}: {removed / 1e6:,.0f} MB removed")
    else:
        print(cache_dir())
    return 0


if __name__ == "__main__":
    sys.exit(main())
