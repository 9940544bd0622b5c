"""Being told to stop: Ctrl-C, SIGTERM and SIGHUP end the command with its tools, and what it began is cleaned up.

The first signal becomes an exception in the main thread, so that temporary files go, and the compilers and synthesisers
running below are ended, whoever started them and however often (threads wait for theirs). A second one ends the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["Stop", "stoppable"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN = 1.0  # seconds: a second signal sooner is the same one (a terminal and a launcher both send theirs)
PR_SET_CHILD_SUBREAPER = 36
GRACE = 3.0  # seconds that tools get to end by themselves


class Stop:
    """``code``: the exit code that a signal asked for, 128 + its number; None before one."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        if self.code is not None:
            if time.monotonic() - self.since > AGAIN:
                os._exit(self.code)
            return
        self.code, self.since = 128 + number, time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Signals go to the :class:`Stop` that this yields, but for those that the process was started to ignore (nohup)."""
    stop, before = Stop(), {}
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()
    former = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for s in SIGNALS:
        if signal.getsignal(s) is not signal.SIG_IGN:
            before[s] = signal.signal(s, stop)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(former)
        os.close(wakeup)
        if stop.code is not None:  # a tool may have started another while it was ended: that one goes too
            _end_tools(2 * GRACE)
        for s, handler in before.items():
            signal.signal(s, handler)


def _listen(heard: int) -> None:
    """End the tools when a signal comes. A thread of its own, which the signal itself wakes: the main thread sees one that
    comes just before it begins to wait only after its wait, which may be for a tool."""
    told = os.read(heard, 1)
    while told and told[0] not in SIGNALS:
        told = os.read(heard, 1)
    os.close(heard)
    if told:
        cache = sys.modules.get("nearflash.cache")  # what hasn't been imported has started no tool
        if cache is not None:
            cache.interrupted.set()
        _end_tools(None)


def _end_tools(at_most: float | None) -> None:
    """End every process below this one, and those that follow: for ``at_most`` seconds, until there are none; None: until
    this process is gone."""
    began = time.monotonic()
    with suppress(OSError, AttributeError):  # Linux: what loses its parent meanwhile becomes a child of ours
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while True:
        past, below = time.monotonic() - began, _below(os.getpid())
        if at_most is not None and (not below or past > at_most):
            return
        for pid in below:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM if past < GRACE else signal.SIGKILL)
        time.sleep(0.1 if at_most is None else 0.01)


def _below(root: int) -> list[int]:
    """Processes that ``root`` started, and those that they started, but for those that have ended (none where there is no
    /proc)."""
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                pid = int(name)
                with open(f"/proc/{pid}/stat") as f:  # "pid (name) state parent ..."; the name may hold anything
                    state, parent = f.read().rpartition(")")[2].split()[:2]
                if state not in ("Z", "X"):
                    children.setdefault(int(parent), []).append(pid)
    found: list[int] = []
    todo: list[Any] = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found
