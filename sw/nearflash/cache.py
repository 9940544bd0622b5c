"""Results kept by content: builds, generated Verilog, synthesis.

A key holds everything that can change a result. An entry is a folder, made under a temporary name that is renamed when
complete, so it is either whole or absent; a lock per entry keeps two processes from doing the same work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
import threading
from collections.abc import Container, Iterator
from pathlib import Path

__all__ = ["cache_dir", "cache_entry", "digest", "interrupted", "sources_digest"]

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
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        failed = folder.with_name(folder.name + ".failed")
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
