"""Programs in processes of their own: found, capped in time, and checked for the files they should leave."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..yosys import SynthesisError

__all__ = ["find", "nextpnr_version", "run_tool", "version_of"]


def find(program: str) -> str | None:
    return shutil.which(program)


POLL_SECONDS = 0.5


def run_tool(command: Sequence[str], folder: Path, log: str, results: Sequence[str], seconds: int,
             say: Callable[[str], None] | None = None) -> str:
    """Run ``command`` in ``folder`` with its output in file ``log``, and return that. ``say``: gets the lines meanwhile.

    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` with the log's end if it fails, takes longer than
    ``seconds`` (all its processes are ended) or leaves one of ``results`` out.
    """
    name = Path(command[0]).name
    with (folder / log).open("w") as out:
        try:
            process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
        except OSError as e:
            raise SynthesisError(f"{name} can't be started: {e}") from e
        try:
            code = process.wait(seconds) if say is None else _followed(process, folder / log, seconds, say)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(e, subprocess.TimeoutExpired):
                raise SynthesisError(f"{name} took more than {seconds} s (log: {folder / log})") from e
            raise
    text = (folder / log).read_text(errors="replace")
    missing = [r for r in results if not (folder / r).is_file() or not (folder / r).stat().st_size]
    if code or missing:
        tail = "\n".join(text.splitlines()[-15:])
        raise SynthesisError(f"{name} ended with code {code}, without {', '.join(missing) or 'nothing missing'}:\n{tail}")
    return text


def _followed(process: subprocess.Popen, log: Path, seconds: int, say: Callable[[str], None]) -> int:
    """Exit code of ``process``, whose lines in ``log`` go to ``say`` as they come."""
    end = time.monotonic() + seconds
    with log.open(errors="replace") as lines:
        while True:
            code = process.poll()
            for line in lines:
                say(line.rstrip("\n"))
            if code is not None:
                return code
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(process.args, seconds)
            time.sleep(POLL_SECONDS)


def version_of(command: Sequence[str]) -> str:
    """What ``command`` prints, one line, for a report and a cache key."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise SynthesisError(f"{command[0]} doesn't tell its version: {e}") from e
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode or not lines:
        raise SynthesisError(f"{command[0]} doesn't tell its version (code {done.returncode})")
    return lines[0]


def nextpnr_version(line: str) -> str:
    """The version in nextpnr's one line about itself."""
    found = re.search(r"\(Version ([^)]+)\)", line)
    return found[1].removeprefix("nextpnr-") if found else line
