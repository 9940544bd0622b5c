"""The ``nearflash`` command."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys

from .stop import Stop, stoppable

__all__ = ["main"]

BROKEN_PIPE = 141  # 128 + SIGPIPE, as of a program that doesn't handle it


def main() -> None:
    """Entry point: runs the command and exits. Exit code 2 and one line on standard error for bad input, a file that can't
    be read or written, and too little memory; 128 + the signal's number when told to stop. Bugs are tracebacks."""
    closed = _open_closed()
    with stoppable() as stop:
        atexit.register(_end, stop)  # first, so that it runs last
        try:
            code = _run(closed)
        except BaseException:
            if stop.code is None:
                raise
            code = stop.code  # whatever the interruption became on its way
    # No traceback from a Ctrl-C while Python ends
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
    sys.exit(code if stop.code is None else stop.code)


def _run(closed: list[int]) -> int:
    try:
        import rich  # noqa: F401
        import typer
    except ImportError:
        print("the nearflash command needs more than the host library: pip install 'nearflash[all]'", file=sys.stderr)
        return 1
    from typer.main import get_command

    from . import output
    from .app import app
    from .options import plain_numbers

    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    output.begin(closed=1 in closed)
    try:
        command = get_command(app)
        plain_numbers(sys.argv[1:])
        with command.make_context("nearflash", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as e:
        return e.exit_code
    except SystemExit:  # what rich, which prints the help, makes of a broken pipe
        return BROKEN_PIPE
    except Exception as e:
        if isinstance(e, BrokenPipeError) and e.filename is None:  # whoever read standard output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return BROKEN_PIPE
        text = output.one_line(e)
        if text is None:
            raise
        if text:
            print(text, file=sys.stderr)
        return 2


def _end(stop: Stop) -> None:
    """Python would end by SIGINT instead of the exit code where an ``exec`` saw the KeyboardInterrupt pass."""
    if stop.code is not None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(stop.code)


def _open_closed() -> list[int]:
    """Open the null device where a standard stream was closed (``>&-``), lest the next file opened takes its place."""
    closed = []
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(fd)
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is fd
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
    return closed
