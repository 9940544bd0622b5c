"""Python environments with a release of pynq each, made once and kept in the cache outside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from nearflash.cache import cache_dir, cache_entry, digest

__all__ = ["VERSIONS", "environment", "run_python"]

VERSIONS = ("3.0.1", "3.1.2", "4.0.0")
#: pynq 3.x: Overlay() imports a module that pycparser 3 dropped; pynqutils imports pkg_resources, which setuptools 81
#: dropped.
OLD_METADATA = "pynqmetadata<0.2"  # with 0.2, pynq 3 ends in a KeyError on any design with a memory in its fabric
BESIDE = ("pycparser<3", "setuptools<81")
HERE = "NEARFLASH_TEST_SITE"  # names the site-packages of this environment, for everything but pynq
SECONDS = 900


def environment(version: str) -> Path:
    """The interpreter of the environment of pynq ``version``. What is not installed there is taken from this one."""
    wanted = [f"pynq=={version}", *BESIDE, *([OLD_METADATA] if version < "4" else [])]
    folder = cache_dir() / "pynq" / digest(*wanted, sys.version, HERE)
    with cache_entry(folder) as work:
        if work is not None:
            # Without a pip of its own, which takes as long to install as a third of the rest
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(work)], check=True, timeout=SECONDS)
            python = work / "bin" / "python"
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
                   "--disable-pip-version-check", "--no-compile"]
            subprocess.run([*pip, *wanted], check=True, timeout=SECONDS)
            site = subprocess.run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                                  capture_output=True, text=True, timeout=60).stdout.strip()
            (Path(site) / "nearflash_test.pth").write_text(
                f"import os, site; os.environ.get('{HERE}') and site.addsitedir(os.environ['{HERE}'])\n")
    return folder / "bin" / "python"


def run_python(version: str, *arguments: str, board: str | None, cwd: Path | None = None, seconds: int = 300
               ) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of pynq ``version``, on virtual board ``board`` (None: without)."""
    env = {k: v for k, v in os.environ.items() if k not in ("NEARFLASH_BOARD", "VIRTUAL_ENV")}
    env[HERE] = sysconfig.get_path("purelib")
    if board is not None:
        env["NEARFLASH_BOARD"] = f"sim:{board}"
    return subprocess.run([str(environment(version)), *arguments], env=env, cwd=cwd, capture_output=True, text=True,
                          timeout=seconds, check=False)
